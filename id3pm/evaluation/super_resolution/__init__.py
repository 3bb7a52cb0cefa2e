"""Super-resolution against plain enlargement, measured."""
