"""The U-Nets' graphs: PyTorch to ONNX, lower precisions."""
