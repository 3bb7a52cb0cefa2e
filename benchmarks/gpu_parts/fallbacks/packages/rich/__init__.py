"""A console that shows nothing, where rich is not installed."""
