"""What stands between the public ports and Triton: limits, tokens, TLS, true readiness, cancellation, supervision."""
