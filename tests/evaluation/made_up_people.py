"""People whose picture is their ID vector: a data set, a pipeline and a judge with known answers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from id3pm.config import DiffusionConfig
from id3pm.evaluation import options
from id3pm.formats import datasets as shards

DIM = 3


def color_of(vectors: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Pictures [N, 8, 8, 3] of one colour that says who it is."""
    color = np.rint(128 + 90 * vectors).astype(np.uint8)
    return np.broadcast_to(color[:, None, None, :], (len(vectors), 8, 8, DIM)).copy()


def people(count: int) -> NDArray[np.float32]:
    """Unit vectors [count, 3], evenly spread over the sphere (Fibonacci lattice)."""
    height = 1 - (2 * np.arange(count) + 1) / count
    angle = np.arange(count) * np.pi * (3 - 5**0.5)
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1).astype(np.float32)


def write_people(folder: Path, count: int, id_vector_model: str = "sface") -> NDArray[np.float32]:
    """A data set that holds out `count` people; returns their ID vectors."""
    vectors = people(count)
    shards.begin(folder, {"kind": "test", "id_vector_model": id_vector_model})
    arrays = {
        "images": color_of(vectors),
        "vectors": vectors,
        "flipped_vectors": vectors,
        "detections": np.zeros((count, 15), np.float32),
        "index": np.arange(count) * shards.TEST_EVERY,
    }
    shards.write_shard(folder, 0, arrays)
    return vectors


class ColorJudge:
    """Reads the ID vector off the colour; black pictures show no face. Counts the pictures it has seen."""

    def __init__(self, independent: bool = False, centred: bool = False) -> None:
        self.name = self.key = "independent" if independent else "color"
        self.independent, self.centred = independent, centred
        self.seen = 0

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.seen += len(images)
        vectors = images.mean(axis=(1, 2)).astype(np.float32) - 128
        vectors[(images == 0).all(axis=(1, 2, 3))] = np.nan
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


class ColorPipeline:
    """At guidance 2 the picture of the person, at 1 that of its opposite, at 3 no face. Counts what it has made.

    The preset `balanced` makes the opposite, too, the others the person.
    """

    base_manifest: Any = SimpleNamespace(
        bundle=SimpleNamespace(name="made up", weights_sha256="0" * 64),
        id_vector_model="sface",
        target="onnx-cpu",
        precision="fp32",
        diffusion=DiffusionConfig(),
        unet=SimpleNamespace(
            learn_sigma=True, identity_dim=3, attribute_dim=None, guidance_range=None, low_res_size=None
        ),
        sampling=SimpleNamespace(sampler="ddpm"),
    )
    face_stage = None

    def __init__(self) -> None:
        self.made = 0
        self.calls = itertools.count()
        self.fail_at: int | None = None

    def __enter__(self) -> ColorPipeline:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def check(self, **options: Any) -> None:
        """Takes everything."""

    def receipts(self, vectors: NDArray[np.float32], seeds: Sequence[int], **options: Any) -> list[dict[str, Any]]:
        attributes = np.asarray(options.pop("attributes", np.zeros((len(vectors), 0))))
        rows = zip(vectors, seeds, attributes, strict=True)
        return [{"vector": v.tolist(), "seed": s, "attributes": a.tolist(), **options} for v, s, a in rows]

    def generate_64(
        self, vectors: NDArray[np.float32], seeds: Sequence[int], *, guidance_scale: float = 2.0, **options: Any
    ) -> NDArray[np.uint8]:
        guidance_scale = 1.0 if options.get("preset") == "balanced" else guidance_scale
        if next(self.calls) == self.fail_at:
            raise KeyboardInterrupt
        self.made += len(vectors)
        return color_of(vectors) if guidance_scale == 2 else color_of(-vectors) * np.uint8(guidance_scale == 1)

    def generate(self, vectors: NDArray[np.float32], seeds: Sequence[int], **options: Any) -> SimpleNamespace:
        images = self.generate_64(vectors, seeds, **options)
        return SimpleNamespace(images=images.repeat(4, axis=1).repeat(4, axis=2))


def replace_engines(monkeypatch: pytest.MonkeyPatch, pipeline: ColorPipeline) -> None:
    """Commands get this pipeline and judges of colours in place of built engines."""
    monkeypatch.setattr(options.Pipeline, "load", lambda repository, threads: pipeline)
    monkeypatch.setattr(options.EngineOptions, "models_key", lambda options: "models")
    monkeypatch.setattr(options, "StageJudge", lambda stage, key: ColorJudge())
    monkeypatch.setattr(options, "DlibJudge", lambda stage, key: ColorJudge(independent=True))
