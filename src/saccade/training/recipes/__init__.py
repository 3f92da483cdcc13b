"""Recipes: the hyperparameters of one trial, their defaults, and the network that they describe."""
