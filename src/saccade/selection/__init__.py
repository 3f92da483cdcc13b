"""From finished trials to a predictor: candidates, ensembles, soups, folds, refit."""
