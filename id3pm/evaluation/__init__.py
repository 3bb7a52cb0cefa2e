"""Evaluation: whether generated faces show whom they should, and what super-resolution is worth."""
