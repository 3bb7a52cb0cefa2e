"""Analysis of FR models through the space of their ID vectors (paper, section 5): `id3pm latent`."""
