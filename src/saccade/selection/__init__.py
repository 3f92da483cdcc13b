"""From finished trials to a predictor: candidates, ensembles, folds, refit."""
