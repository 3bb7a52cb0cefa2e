"""Identity of generated faces, measured."""
