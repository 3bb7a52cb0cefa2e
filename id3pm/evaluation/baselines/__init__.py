"""Older methods to invert an FR model, reimplemented and compared with ID3PM on the same targets."""
