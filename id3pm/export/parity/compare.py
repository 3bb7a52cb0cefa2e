"""The parity gate: compares an engine with the fp32 PyTorch U-Net of the bundle.

Three questions about the built engine, loaded as in the server:

1. Forward: the same output at timesteps from clean to pure noise, with the condition and with the null vector?
2. Rows: the same bits for a row, whatever batch and position it is in?
3. Trajectory: the same image at the end of a whole sampling loop with the same noise, and the same person in it?
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.config import DiffusionConfig, SamplingOptions
from id3pm.engines.base import Engine
from id3pm.engines.host_access import on_host
from id3pm.engines.inputs import EngineInputs
from id3pm.engines.manifest import Manifest, Parity
from id3pm.export.parity.company import compare_company
from id3pm.export.parity.identity import known_face
from id3pm.export.parity.inputs import conditions_of, dead_leaves, forward_rows
from id3pm.export.parity.trajectory import largest_batch, options, run_rows, sample_images
from id3pm.face.encoders import unit
from id3pm.face.stage import FaceStage
from id3pm.formats.bundle import Stage
from id3pm.formats.images import to_uint8

FloatArray = NDArray[np.float32]
Report = Callable[[str], None]

BATCH_SIZES = (1, 2, 3)  # and the largest
MAX_PSNR = 200.0  # written for images that are equal bit by bit: JSON has no infinity


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """Length of the trajectory: enough steps for errors to add up, few enough for a build on two cores."""

    steps: int
    images: int


TRIALS: dict[Stage, Trial] = {"base": Trial(steps=10, images=2), "sr": Trial(steps=4, images=1)}


def compare(
    reference: Engine,
    engine: Engine,
    manifest: Manifest,
    report: Report = lambda _: None,
    faces: FaceStage | None = None,
) -> Parity:
    """Measures; `parity_report.misses` judges.

    Args:
        reference: The fp32 PyTorch U-Net.
        engine: The new engine.
        manifest: Its manifest.
        report: Called with a few words at the start of each phase.
        faces: The face engine of the bundle's ID vectors; without one the identity of the images is not compared.

    Returns:
        The measurements, with the manifest's thresholds.
    """
    reference, engine = on_host(reference), on_host(engine)
    report("parity: forward passes in batches of all sizes")
    forward, from_alone = _compare_forward(reference, engine, manifest.diffusion)
    report("parity: trajectory")
    images = _sampler(manifest, faces)
    trajectory = _compare_trajectory(reference, engine, manifest, images, faces)
    company: dict[str, Any] = {}
    if manifest.buckets == "fast":
        report("parity: alone and among others")
        company = compare_company(engine, largest_batch(engine), images, from_alone, _psnr)
    return dataclasses.replace(
        manifest.parity,
        forward=forward,
        trajectory=trajectory,
        batch_invariant=from_alone == 0.0,
        company=company,
    )


def _compare_forward(
    reference: Engine, engine: Engine, diffusion: DiffusionConfig
) -> tuple[list[dict[str, Any]], float]:
    """One entry per timestep and condition; and the largest relative L2 error of a row in any batch size from the same
    row alone, 0 for the same bits and never 0 for others.
    """
    rows = forward_rows(reference.config, diffusion)
    names, inputs = zip(*rows, strict=True)
    stacked = {name: np.stack([row[name] for row in inputs]) for name in inputs[0]}
    expected = run_rows(reference, stacked, min(BATCH_SIZES[-1], largest_batch(reference)))
    largest = largest_batch(engine)
    sizes = sorted({min(size, largest) for size in BATCH_SIZES} | {largest})
    alone = run_rows(engine, stacked, 1)
    worst_abs, worst_relative = np.zeros(len(names)), np.zeros(len(names))
    from_alone = 0.0
    single = (np.arange(len(names)), alone)
    for indices, outputs in (single, *_larger_batches(engine, stacked, sizes)):
        from_alone = max(from_alone, _from_alone(outputs, alone[indices]))
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
    return entries, from_alone


def _from_alone(outputs: FloatArray, alone: FloatArray) -> float:
    """The largest relative L2 error of a row; infinity for NaN."""
    if outputs.tobytes() == alone.tobytes():
        return 0.0
    rows = (len(outputs), -1)
    norm = np.maximum(np.linalg.norm(alone.reshape(rows), axis=1), np.finfo(np.float32).tiny)
    worst = float(np.max(np.linalg.norm((outputs - alone).reshape(rows), axis=1) / norm))
    return math.inf if math.isnan(worst) else max(worst, float(np.finfo(np.float32).tiny))


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


def _how(manifest: Manifest) -> SamplingOptions:
    return options(manifest.unet, manifest.diffusion, TRIALS[manifest.stage].steps)


def _sampler(manifest: Manifest, faces: FaceStage | None) -> Callable[[Engine], FloatArray]:
    """A function that samples the images of the trajectory with an engine."""
    config, trial = manifest.unet, TRIALS[manifest.stage]
    pairs = [conditions_of(config, image) for image in range(trial.images)]
    conditions = [(pair[0][1], pair[-1][1]) for pair in pairs]
    if faces is not None and config.identity_dim is not None:
        for given, _ in conditions[1:]:  # the first keeps a random vector
            given["identity"] = known_face(faces)
    low_res = None
    if config.low_res_size is not None:
        low_res = np.stack([dead_leaves(image, config.low_res_size) for image in range(trial.images)])
    return lambda engine: sample_images(engine, manifest.diffusion, _how(manifest), conditions, low_res)


def _compare_trajectory(
    reference: Engine,
    engine: Engine,
    manifest: Manifest,
    images: Callable[[Engine], FloatArray],
    faces: FaceStage | None,
) -> dict[str, Any]:
    how = _how(manifest)
    expected, actual = images(reference), images(engine)
    squared = np.mean((actual.astype(np.float64) - expected) ** 2, axis=(1, 2, 3))
    result: dict[str, Any] = {
        "sampler": how.sampler,
        "steps": how.steps,
        "guidance_scale": how.guidance_scale,
        "images": len(expected),
        "psnr_db": float(np.min([_psnr(float(error)) for error in squared])),  # NaN stays NaN
        "max_abs_error": float(np.abs(actual - expected).max()),
    }
    return result | (compare_identity(expected, actual, faces) if manifest.stage == "base" else {})


def compare_identity(expected: FloatArray, actual: FloatArray, faces: FaceStage | None) -> dict[str, Any]:
    """Compares the identity of images from the engine and from the reference.

    Args:
        expected: Images of the reference, float32 [N, 3, 64, 64] in [-1, 1].
        actual: Images of the engine from the same noise.
        faces: Detector and FR model.

    Returns:
        `identity_cosine`, the lowest of all images, and `identity_images`, their number; or `identity_not_compared`,
        the reason.
    """
    if faces is None:
        return {"identity_not_compared": "the repository has no face engine of the bundle's ID vectors"}
    if not np.isfinite(actual).all():
        return {"identity_cosine": math.nan}
    images = [to_uint8(images) for images in (expected, actual)]
    # Both are aligned by the landmarks of the reference, so that the detector does not matter.
    found = faces.detect(images[0])
    seen = [index for index, detections in enumerate(found) if len(detections)]
    if not seen:
        return {"identity_not_compared": "the reference network's images show no face"}
    best = [found[index][0] for index in seen]
    first, second = (unit(faces.encode([pictures[index] for index in seen], best)) for pictures in images)
    return {"identity_cosine": float(np.min(np.sum(first * second, axis=1))), "identity_images": len(seen)}


def _psnr(mean_squared_error: float) -> float:
    """In dB, for images in [-1, 1], whose range is 2; NaN for NaN."""
    if mean_squared_error == 0.0:
        return MAX_PSNR
    return min(10 * math.log10(4.0 / mean_squared_error), MAX_PSNR)
