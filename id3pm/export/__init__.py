"""From a bundle to verified engines in a Triton model repository."""
