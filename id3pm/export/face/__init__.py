"""Face-recognition models as ONNX, with a manifest of their preprocessing."""
