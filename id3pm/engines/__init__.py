"""Compiled U-Nets behind one interface: onnxruntime, OpenVINO, TensorRT, and PyTorch as the reference."""
