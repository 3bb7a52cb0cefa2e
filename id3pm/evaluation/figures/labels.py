"""Labels measured on generated faces: from their pixels, or from dense landmarks if those are installed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.attributes import fields_of
from id3pm.errors import EngineMissingError, MissingExtraError
from id3pm.face.appearance import LABELS
from id3pm.face.appearance import measure as measure_pixels
from id3pm.face.landmarks import FaceMesh
from id3pm.face.measures import measure as measure_landmarks

Floats = NDArray[np.float64]
MIN_SCORE = 0.5
"""Least confidence of the landmark network."""
UNITS = {field.name: field.unit or "share of the range seen" for field in fields_of("landmarks")}


class Labels:
    """Measures labels by the names that directions have.

    Args:
        names: The labels that will be used; the landmark network is loaded only if one of them needs it.
        threads: CPU threads; `None` for all cores.
    """

    def __init__(self, names: list[str], threads: int | None = None) -> None:
        self._mesh: FaceMesh | None = None
        wanted = [name for name in names if name in UNITS and name not in LABELS]
        if wanted:
            try:
                self._mesh = FaceMesh(threads=threads)
            except (EngineMissingError, MissingExtraError):
                wanted = []  # an optional network: the coordinate along the direction is measured instead
        self.names = (*LABELS, *wanted)

    def text(self, name: str) -> str:
        """Description of a label, with its unit."""
        return LABELS[name].text if name in LABELS else f"{name.replace('_', ' ')}, {UNITS[name]}"

    def measure(self, images: NDArray[np.uint8], detections: NDArray[np.floating[Any]]) -> dict[str, Floats]:
        """All of `names` on one face in each picture.

        Args:
            images: uint8 [N, H, W, 3], RGB.
            detections: [N, 15]; NaN where there is no face.

        Returns:
            Name -> float64 [N]; NaN where there is no face.
        """
        found = {name: measure_pixels(name, images, detections) for name in LABELS}
        if self._mesh is None:
            return found
        usable = np.flatnonzero(np.isfinite(detections).all(axis=1))
        for name in self.names[len(LABELS) :]:
            found[name] = np.full(len(images), np.nan)
        if len(usable):
            points, scores = self._mesh.find(images[usable], detections[usable, 4:14].reshape(-1, 5, 2))
            sure = usable[scores >= MIN_SCORE]
            values = measure_landmarks(points[scores >= MIN_SCORE])
            for name in self.names[len(LABELS) :]:
                found[name][sure] = values[name]
        return found
