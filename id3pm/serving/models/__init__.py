"""The Triton models: what runs in Triton's Python backend."""
