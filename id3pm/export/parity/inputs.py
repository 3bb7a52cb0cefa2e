"""Inputs of the parity checks: noised pictures, ID vectors and attributes, all from seeds.

The pictures are dead leaves (Lee, Mumford and Huang 2001, "Occlusion models for natural images"): discs of power-law
size and random colour that cover each other. They have the statistics of natural images, with edges, flat areas and
details at all scales, exist in any size, and show no person.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from id3pm.config import DiffusionConfig, UNetConfig
from id3pm.diffusion.guidance import null_attributes, null_identity
from id3pm.diffusion.noise import STAGE_BASE, noise
from id3pm.diffusion.schedule import respaced_schedule

FloatArray = NDArray[np.float32]
Row = dict[str, FloatArray]
"""Inputs of one row, without the batch axis."""

TIMESTEPS = (0.0, 0.25, 0.5, 0.75, 1.0)  # as fractions of T: 0, 250, 500, 750 and 999 of 1000
DISCS = 150
SMALLEST, LARGEST = 0.03, 0.6  # radius in picture widths


def dead_leaves(seed: int, size: int) -> NDArray[np.float32]:
    """One picture; the same seed shows the same scene at every size.

    Args:
        seed: Any non-negative integer.
        size: Height and width in pixels.

    Returns:
        float32 [3, size, size] in [-1, 1].
    """
    generator = np.random.Generator(np.random.Philox(seed))
    # Inverse of the cumulative distribution of p(r) ~ r^-3, the scale-invariant choice.
    uniform = generator.random(DISCS)
    radii = (SMALLEST**-2 - uniform * (SMALLEST**-2 - LARGEST**-2)) ** -0.5
    centres = generator.random((DISCS, 2))
    colours = generator.uniform(-1.0, 1.0, (DISCS, 3)).astype(np.float32)
    picture = np.empty((3, size, size), dtype=np.float32)
    picture[:] = generator.uniform(-1.0, 1.0, (3, 1, 1))
    pixels = (np.arange(size) + 0.5) / size
    for radius, (y, x), colour in zip(radii, centres, colours, strict=True):
        inside = (pixels[:, None] - y) ** 2 + (pixels[None, :] - x) ** 2 < radius**2
        picture[:, inside] = colour[:, None]
    return picture


def forward_rows(config: UNetConfig, diffusion: DiffusionConfig) -> list[tuple[tuple[float, str], Row]]:
    """Noised pictures: ((time step, condition), inputs without batch axis).

    At all `TIMESTEPS`; of a student only at those that it was trained at.
    """
    schedule = respaced_schedule(diffusion, diffusion.diffusion_steps)
    last = diffusion.diffusion_steps - 1
    spread = tuple(min(int(fraction * diffusion.diffusion_steps), last) for fraction in TIMESTEPS)
    rows = []
    for number, index in enumerate(diffusion.student_timesteps or spread):
        x0 = dead_leaves(number, config.image_size)
        eps = noise(number, STAGE_BASE, 0, x0.shape)
        # q(x_t | x_0), Ho et al. (2020) eq. 4
        x = schedule.sqrt_alphas_cumprod[index] * x0 + schedule.sqrt_one_minus_alphas_cumprod[index] * eps
        for condition, values in conditions_of(config, number):
            timestep = np.float32(schedule.model_timesteps[index])
            row = {"x": x.astype(np.float32), "timesteps": timestep, **values}
            if config.low_res_size is not None:
                row["low_res"] = dead_leaves(number, config.low_res_size)
            rows.append(((float(index), condition), row))
    return rows


def conditions_of(config: UNetConfig, seed: int) -> list[tuple[str, Row]]:
    """The image's condition vectors, and the null vectors; one empty dict where the network takes none."""
    generator = np.random.Generator(np.random.Philox(seed))
    given: Row = {}
    null: Row = {}
    if config.identity_dim is not None:
        vector = generator.standard_normal(config.identity_dim, dtype=np.float32)
        given["identity"] = vector / np.linalg.norm(vector)  # ID vectors have norm 1
        null["identity"] = null_identity(1, config.identity_dim)[0]
    if config.attribute_dim is not None:
        given["attributes"] = generator.random(config.attribute_dim, dtype=np.float32)
        null["attributes"] = null_attributes(1, config.attribute_dim)[0]
    if config.guidance_range is not None:
        scale = np.array(generator.uniform(*config.guidance_range), dtype=np.float32)
        given["guidance"] = null["guidance"] = scale
    return [("conditional", given), ("null", null)] if given else [("", {})]
