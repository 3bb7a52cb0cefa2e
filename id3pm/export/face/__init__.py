"""Face-recognition models as ONNX, with a manifest that says how faces are prepared."""
