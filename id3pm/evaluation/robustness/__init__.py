"""Robustness of a face-recognition model, measured through its ID vectors: `id3pm analyse` (paper, section 5)."""
