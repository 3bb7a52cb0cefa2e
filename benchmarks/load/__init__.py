"""Load on a running server: what arrives when, what came back, and what it says. `benchmarks/loadtest.py` runs it."""
