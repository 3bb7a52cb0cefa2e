"""What is stored: bundles, model cards, images, arrays, data sets of faces, hashes."""
