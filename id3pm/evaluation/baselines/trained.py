"""Methods that make a picture of an ID vector without queries: NbNet, Vec2Face, and ID3PM itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from id3pm.evaluation.baselines.black_box import Floats
from id3pm.evaluation.baselines.nbnet import NbNet
from id3pm.evaluation.baselines.vec2face import Generator
from id3pm.evaluation.baselines.weights import load_facts, load_weights
from id3pm.formats.hashing import file_sha256
from id3pm.pipeline import Pipeline

BATCH = 32
NETWORKS: Mapping[str, tuple[str, type[nn.Module]]] = {
    "nbnet": ("NbNet", NbNet),
    "vec2face": ("Vec2Face (after the published description)", Generator),
}
"""Method -> its name in reports, and its network."""


class TrainedNetwork:
    """See `Direct`: one picture for one vector, whatever the seed.

    Args:
        method: A key of `NETWORKS`.
        file: Its weights.
        id_vector_model: The FR model whose vectors are inverted.

    Raises:
        InvalidInputError: The file is missing, or of another method or FR model.
        CheckpointError: It is damaged.
    """

    one_to_many = False

    def __init__(self, method: str, file: Path, id_vector_model: str) -> None:
        self.name, kind = NETWORKS[method]
        self.facts = load_facts(file, method, id_vector_model)
        self._network = kind(**self.facts["network"])
        load_weights(file, self._network)
        self._key = f"{method} {file_sha256(file)}"

    def key(self, vectors: Floats, seeds: Sequence[int]) -> object:
        """See `Direct.key`."""
        return {"method": self._key, "vectors": vectors.tolist()}

    @torch.inference_mode()
    def images(self, vectors: Floats, seeds: Sequence[int]) -> NDArray[np.uint8]:
        """See `Direct.images`; the vectors' norms do not matter."""
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        made = torch.cat(
            [
                self._network(torch.from_numpy(unit[start : start + BATCH].astype(np.float32)))
                for start in range(0, len(unit), BATCH)
            ]
        )
        pixels = ((made + 1.0) * 127.5).round().clamp(0.0, 255.0).to(torch.uint8).permute(0, 2, 3, 1).numpy()
        return np.ascontiguousarray(pixels)


class Id3pm:
    """See `Direct`: the 64 px stage of a bundle.

    Args:
        pipeline: Generates.
        options: Sampling options.
    """

    name, one_to_many = "ID3PM", True

    def __init__(self, pipeline: Pipeline, options: Mapping[str, Any]) -> None:
        self._pipeline, self._options = pipeline, dict(options)

    def key(self, vectors: Floats, seeds: Sequence[int]) -> object:
        """See `Direct.key`."""
        return self._pipeline.receipts(vectors, list(seeds), super_resolution=False, **self._options)

    def images(self, vectors: Floats, seeds: Sequence[int]) -> NDArray[np.uint8]:
        """See `Direct.images`."""
        return self._pipeline.generate_64(vectors, list(seeds), **self._options)
