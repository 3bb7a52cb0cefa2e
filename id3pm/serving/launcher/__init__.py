"""Starts, supervises and stops a Triton server."""
