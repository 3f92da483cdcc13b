"""From decoded images to labels: the network, its average, calibration and decision; saved predictors."""
