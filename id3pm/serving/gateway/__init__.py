"""The gateway in front of Triton: limits, auth, TLS, readiness, cancellation, streams."""
