"""Identity kept by groups of people: where a bundle works worse than elsewhere."""
