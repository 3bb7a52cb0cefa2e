"""Sheets of pictures that show what a control does, each with the measured effect: `id3pm sheet`."""
