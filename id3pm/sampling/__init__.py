"""Requests, the step scheduler that samples them together, and the two-stage cascade."""
