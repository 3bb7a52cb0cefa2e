"""What a face-recognition model is robust against, seen through its ID vectors: `id3pm analyse` (paper, section 5)."""
