"""Whole sampling loops over an engine, for the parity gate and for int8 calibration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from id3pm.config import DiffusionConfig, SamplingOptions, UNetConfig
from id3pm.diffusion.noise import STAGE_BASE, STAGE_SR, noise
from id3pm.diffusion.samplers import plan, sample
from id3pm.engines.base import Engine
from id3pm.engines.inputs import EngineInputs, input_shapes
from id3pm.export.parity.inputs import Row

FloatArray = NDArray[np.float32]
GUIDANCE_SCALE = 2.0  # the paper's
MAX_ACTIVATION = 2**26
"""Most elements of one activation (256 MiB) in a batch of the checks; only full-size super-resolution is above."""


def options(config: UNetConfig, diffusion: DiffusionConfig, steps: int) -> SamplingOptions:
    """DDIM with eta 1: fresh noise at every step as in ddpm, but faces after few steps. A student's own steps."""
    steps = min(steps, diffusion.diffusion_steps)
    if diffusion.student_timesteps is not None:
        return SamplingOptions(sampler="student", steps=len(diffusion.student_timesteps))
    conditional = config.identity_dim is not None or config.attribute_dim is not None
    return SamplingOptions(sampler="ddim", eta=1.0, steps=steps, guidance_scale=GUIDANCE_SCALE if conditional else 1.0)


def sample_images(
    engine: Engine,
    diffusion: DiffusionConfig,
    how: SamplingOptions,
    conditions: Sequence[tuple[Row, Row]],
    low_res: FloatArray | None,
) -> FloatArray:
    """Samples one image per condition; its noise depends on its number alone.

    Args:
        engine: The U-Net.
        diffusion: Its noising process.
        how: Sampler, steps and guidance.
        conditions: For every image its condition vectors and the null vectors.
        low_res: float32 [N, 3, s, s] in [-1, 1] for super-resolution.

    Returns:
        float32 [N, 3, S, S], clipped to [-1, 1].
    """
    config = engine.config
    stage = STAGE_BASE if config.low_res_size is None else STAGE_SR
    shape = input_shapes(config, 1)["x"][1:]

    def model(
        x: FloatArray, timesteps: FloatArray, rows: NDArray[np.intp], conditional: NDArray[np.bool_]
    ) -> FloatArray:
        vectors = [conditions[row][0 if given else 1] for row, given in zip(rows, conditional, strict=True)]
        inputs = {"x": x, "timesteps": timesteps}
        inputs |= {name: np.stack([vector[name] for vector in vectors]) for name in vectors[0]}
        if low_res is not None:
            inputs["low_res"] = low_res[rows]
        return run_rows(engine, inputs, largest_batch(engine))

    def draw(row: int, number: int) -> FloatArray:
        return noise(row, stage, number, shape)

    start = np.stack([draw(image, 0) for image in range(len(conditions))])
    plans = [plan(diffusion, how, config.learn_sigma)] * len(conditions)
    result: FloatArray = sample(model, start, plans, draw, low_res)
    return np.clip(result, -1.0, 1.0)


def largest_batch(engine: Engine) -> int:
    """Most rows of one call in the checks."""
    config = engine.config
    widest = config.num_channels * config.image_size**2
    return max(1, min(engine.max_batch, MAX_ACTIVATION // widest))


def run_rows(engine: Engine, inputs: EngineInputs, size: int) -> FloatArray:
    """The engine's output for all rows in order, float32 [N, 6, S, S], evaluated `size` rows at a time."""
    count = len(inputs["x"])
    return np.concatenate(
        [
            engine.run({name: np.ascontiguousarray(array[start : start + size]) for name, array in inputs.items()})
            for start in range(0, count, size)
        ]
    )
