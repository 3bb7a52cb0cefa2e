"""Load tests against a running server; `benchmarks/loadtest.py` is the command."""
