"""One trial: a recipe, epochs, scores; and what ties labels to the outputs of a network."""
