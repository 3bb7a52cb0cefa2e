"""ID3PM in production: ID vector and seed in, faces of that identity out.

Importing this package loads no heavy library. The rooms, from the ground up: `config`, `unet` / `diffusion` / `face`,
`engines`, `sampling`, `pipeline`, `serving`; beside them `training` and `evaluation`.
"""

__version__ = "0.1.0"
