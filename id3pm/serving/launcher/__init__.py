"""Starts a Triton server, checks its health, ends it."""
