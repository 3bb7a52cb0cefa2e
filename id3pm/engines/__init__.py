"""Compiled U-Nets behind one interface: onnxruntime, TensorRT, and PyTorch as the reference."""
