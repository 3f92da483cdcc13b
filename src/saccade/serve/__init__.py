"""An HTTP server of a predictor, or of an exported ONNX file."""
