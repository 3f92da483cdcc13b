"""One trial: from a recipe to trained weights, epoch by epoch."""
