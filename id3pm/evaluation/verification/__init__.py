"""Verification: published protocols on real and on generated faces, and the similarities of held-out people."""
