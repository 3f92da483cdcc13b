"""Files of a predictor that run without Saccade: ONNX and others, one module per format."""
