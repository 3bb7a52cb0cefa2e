"""Formats on disk: bundles, model cards, images, arrays, data sets of faces, hashes."""
