"""Robustness of a face-recognition model, seen through its ID vectors: `id3pm analyse` (paper, section 5)."""
