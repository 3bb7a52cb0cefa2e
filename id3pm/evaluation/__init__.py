"""Evaluation: identity, super-resolution, figures of each control, robustness of the FR model."""
