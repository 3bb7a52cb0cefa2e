"""Serving: wire names, the option table, what the Triton models do, metrics, and the launcher of the server."""
