"""Identity kept by groups of people: finds groups for which a bundle works worse."""
