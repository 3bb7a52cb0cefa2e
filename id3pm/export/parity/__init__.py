"""The parity gate: an engine against the fp32 PyTorch model."""
