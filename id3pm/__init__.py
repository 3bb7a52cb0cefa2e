"""ID3PM in production: ID vector and seed in, faces of that identity out.

Importing this package loads no heavy library. The rooms, from the ground up: `config`, `unet` / `diffusion` / `face` /
`latent`, `engines`, `sampling`, `pipeline`, `serving`.
"""

__version__ = "0.1.0"
