"""Distillation: students that make an image in 1, 2 or 4 evaluations of the network, guidance included."""
