"""Auto search for images: learned portfolio, cost model, and freeze-thaw search."""
