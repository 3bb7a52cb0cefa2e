"""With `fast` buckets: how far an image made alone may be from the same image made among others."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from id3pm.engines.arrays import HOST
from id3pm.engines.base import Engine
from id3pm.engines.inputs import EngineInputs, FloatArray
from id3pm.formats.images import to_uint8

Psnr = Callable[[float], float]


@dataclasses.dataclass
class FixedSize:
    """An engine, all of whose calls have the same number of rows; those that a call does not have are repeated.

    Attributes:
        engine: With host arrays.
        max_batch: The size.
    """

    engine: Engine
    max_batch: int

    def __post_init__(self) -> None:
        self.config = self.engine.config
        self.description = self.engine.description
        self.arrays = HOST

    def run(self, inputs: EngineInputs) -> FloatArray:
        """See `Engine.run`."""
        rows = np.arange(self.max_batch) % len(inputs["x"])
        output: FloatArray = self.engine.run({name: np.ascontiguousarray(a[rows]) for name, a in inputs.items()})
        return output[: len(inputs["x"])]

    def close(self) -> None:
        """Leaves the engine open."""


def compare_company(
    engine: Engine, largest: int, images: Callable[[Engine], FloatArray], relative_error: float, psnr: Psnr
) -> dict[str, Any]:
    """Measures `Parity.company`.

    Args:
        engine: With host arrays.
        largest: Most rows of one call.
        images: Samples the images of the trajectory with an engine, float32 [N, 3, S, S] in [-1, 1].
        relative_error: Of a forward pass, measured already.
        psnr: dB of a mean squared error.
    """
    alone, among = (images(FixedSize(engine, size)) for size in (1, largest))
    squared = np.mean((alone.astype(np.float64) - among) ** 2, axis=(1, 2, 3))
    levels = np.abs(to_uint8(alone).astype(int) - to_uint8(among)).max()
    return {
        "rows": [1, largest],
        "relative_error": relative_error,
        "psnr_db": float(np.min([psnr(float(error)) for error in squared])),
        "max_levels": int(levels),
    }
