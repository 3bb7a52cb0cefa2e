"""Older ways to invert an FR model, reimplemented from their published maths, beside ID3PM on the same targets."""
