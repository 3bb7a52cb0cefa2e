"""The parity gate: is this engine the same function as the fp32 PyTorch U-Net of the bundle?

Three questions, asked of the built engine through the loader that the server uses:

1. Forward: the same output at time steps from clean to pure noise, with the condition and with the null vector?
2. Rows: the same bits for a row, whatever batch and position it is in?
3. Trajectory: the same image at the end of a whole sampling loop with the same noise?
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.bundle import Stage
from id3pm.config import DiffusionConfig, SamplingOptions
from id3pm.diffusion.noise import STAGE_BASE, STAGE_SR, noise
from id3pm.diffusion.samplers import plan, sample
from id3pm.engines.base import Engine
from id3pm.engines.inputs import EngineInputs, input_shapes
from id3pm.engines.manifest import Manifest, Parity
from parity_inputs import conditions_of, dead_leaves, forward_rows

FloatArray = NDArray[np.float32]
Report = Callable[[str], None]

BATCH_SIZES = (1, 2, 3)  # and the largest
GUIDANCE_SCALE = 2.0  # the paper's
MAX_ACTIVATION = 2**26
"""Most elements of one activation (256 MiB) in a batch of the checks; only full-size super-resolution is above."""
MAX_PSNR = 200.0  # written for images that are equal bit by bit: JSON has no infinity


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """How long the trajectory is: enough steps for errors to add up, few enough for a build on two cores."""

    steps: int
    images: int


TRIALS: dict[Stage, Trial] = {"base": Trial(steps=10, images=2), "sr": Trial(steps=4, images=1)}


def compare(reference: Engine, engine: Engine, manifest: Manifest, report: Report = lambda _: None) -> Parity:
    """Measures; `parity_report.misses` judges.

    Args:
        reference: The fp32 PyTorch U-Net.
        engine: What was built.
        manifest: Its manifest; the trajectory takes the bundle's options from there, but ddpm and few steps.
        report: Called with a few words at the start of each phase.

    Returns:
        The measurements, with the manifest's thresholds.
    """
    report("parity: forward passes in batches of all sizes")
    forward, invariant = _compare_forward(reference, engine, manifest.diffusion)
    report("parity: trajectory")
    return dataclasses.replace(
        manifest.parity,
        forward=forward,
        trajectory=_compare_trajectory(reference, engine, manifest),
        batch_invariant=invariant,
    )


def _compare_forward(
    reference: Engine, engine: Engine, diffusion: DiffusionConfig
) -> tuple[list[dict[str, Any]], bool]:
    """One entry per time step and condition, and whether all batch sizes gave the same bits."""
    rows = forward_rows(reference.config, diffusion)
    names, inputs = zip(*rows, strict=True)
    stacked = {name: np.stack([row[name] for row in inputs]) for name in inputs[0]}
    expected = _run(reference, stacked, min(BATCH_SIZES[-1], _largest_batch(reference)))
    largest = _largest_batch(engine)
    sizes = sorted({min(size, largest) for size in BATCH_SIZES} | {largest})
    alone = _run(engine, stacked, 1)
    worst_abs, worst_relative = np.zeros(len(names)), np.zeros(len(names))
    invariant = True
    single = (np.arange(len(names)), alone)
    for indices, outputs in (single, *_larger_batches(engine, stacked, sizes)):
        invariant = invariant and outputs.tobytes() == alone[indices].tobytes()
        difference = (outputs - expected[indices]).reshape(len(indices), -1)
        norm = np.linalg.norm(expected[indices].reshape(len(indices), -1), axis=1)
        relative = np.linalg.norm(difference, axis=1) / np.maximum(norm, np.finfo(np.float32).tiny)
        # maximum.at, because a batch larger than the number of rows holds some of them twice; it keeps NaN.
        np.maximum.at(worst_abs, indices, np.abs(difference).max(axis=1))
        np.maximum.at(worst_relative, indices, relative)
    entries = [
        {
            "timestep": timestep,
            "condition": condition,
            "max_abs_error": float(worst_abs[i]),
            "relative_error": float(worst_relative[i]),
            "batch_sizes": sizes,
        }
        for i, (timestep, condition) in enumerate(names)
    ]
    return entries, invariant


def _largest_batch(engine: Engine) -> int:
    config = engine.config
    widest = config.num_channels * config.image_size**2
    return max(1, min(engine.max_batch, MAX_ACTIVATION // widest))


def _larger_batches(
    engine: Engine, inputs: EngineInputs, sizes: list[int]
) -> Iterator[tuple[NDArray[np.intp], FloatArray]]:
    """Every row in a batch of every size above 1, at changing positions: (row numbers, outputs)."""
    count = len(inputs["x"])
    for size in sizes:
        if size == 1:
            continue
        for start in range(0, count, size):
            indices = (start + np.arange(size))[:: -1 if start // size % 2 else 1] % count
            yield indices, engine.run({name: np.ascontiguousarray(array[indices]) for name, array in inputs.items()})


def _run(engine: Engine, inputs: EngineInputs, size: int) -> FloatArray:
    """All rows in order, `size` at a time."""
    count = len(inputs["x"])
    return np.concatenate(
        [
            engine.run({name: np.ascontiguousarray(array[start : start + size]) for name, array in inputs.items()})
            for start in range(0, count, size)
        ]
    )


def _compare_trajectory(reference: Engine, engine: Engine, manifest: Manifest) -> dict[str, Any]:
    config, trial = manifest.unet, TRIALS[manifest.stage]
    conditional = config.identity_dim is not None or config.attribute_dim is not None
    options = dataclasses.replace(
        manifest.sampling,
        sampler="ddpm",
        eta=0.0,
        steps=min(trial.steps, manifest.diffusion.diffusion_steps),
        guidance_scale=GUIDANCE_SCALE if conditional else 1.0,
    )
    expected = _sample(reference, manifest, options, trial.images)
    actual = _sample(engine, manifest, options, trial.images)
    squared = np.mean((actual.astype(np.float64) - expected) ** 2, axis=(1, 2, 3))
    return {
        "sampler": options.sampler,
        "steps": options.steps,
        "guidance_scale": options.guidance_scale,
        "images": trial.images,
        "psnr_db": float(np.min([_psnr(float(error)) for error in squared])),  # NaN stays NaN
        "max_abs_error": float(np.abs(actual - expected).max()),
    }


def _psnr(mean_squared_error: float) -> float:
    """In dB, for images in [-1, 1], whose range is 2; NaN for NaN."""
    if mean_squared_error == 0.0:
        return MAX_PSNR
    return min(10 * math.log10(4.0 / mean_squared_error), MAX_PSNR)


def _sample(engine: Engine, manifest: Manifest, options: SamplingOptions, images: int) -> FloatArray:
    """Final images [images, 3, S, S], clipped to [-1, 1]; noise and conditions depend on the image's number alone."""
    config, stage = manifest.unet, STAGE_BASE if manifest.stage == "base" else STAGE_SR
    shape = input_shapes(config, 1)["x"][1:]
    conditions = [conditions_of(config, image) for image in range(images)]

    def model(
        x: FloatArray, timesteps: FloatArray, rows: NDArray[np.intp], conditional: NDArray[np.bool_]
    ) -> FloatArray:
        vectors = [conditions[row][0 if given else -1][1] for row, given in zip(rows, conditional, strict=True)]
        inputs = {"x": x, "timesteps": timesteps}
        inputs |= {name: np.stack([vector[name] for vector in vectors]) for name in vectors[0]}
        if config.low_res_size is not None:
            inputs["low_res"] = np.stack([dead_leaves(int(row), config.low_res_size) for row in rows])
        return _run(engine, inputs, _largest_batch(engine))

    def draw(row: int, number: int) -> FloatArray:
        return noise(row, stage, number, shape)

    start = np.stack([draw(image, 0) for image in range(images)])
    plans = [plan(manifest.diffusion, options, config.learn_sigma)] * images
    result: FloatArray = sample(model, start, plans, draw)
    return np.clip(result, -1.0, 1.0)
