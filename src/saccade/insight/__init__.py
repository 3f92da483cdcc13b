"""Explanations: saliency maps, nearest training images, near-duplicates and label issues."""
