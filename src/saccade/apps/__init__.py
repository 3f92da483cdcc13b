"""Programs behind commands that need more than a call of the predictor."""
