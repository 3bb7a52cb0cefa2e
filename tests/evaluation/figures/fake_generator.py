"""A generator without networks: its generator shows the vector that it was given as well as it is told to."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import numpy as np

from id3pm.config import SamplingOptions
from id3pm.evaluation.figures import sheet
from id3pm.evaluation.figures.generator import GeneratedFaces, Person

DIM = 16
PEOPLE = 4


def people_vectors() -> np.ndarray:
    vectors = np.random.default_rng(1).standard_normal((PEOPLE, DIM)).astype(np.float32)
    vectors[:, 0] += 1.5  # people share something, as those of an FR model do
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


class FakeGenerator:
    """Of `id3pm.evaluation.figures.generator.FaceGenerator`, what the sheets use.

    `fidelity` 1 gives images whose ID vectors are those that were asked for, 0 always the same person's; a picture is
    as light as the vector's third number. Rows in `faceless` show no face. `restless` is the noise that seeds bring
    into ID vectors; guidance divides it. `enlarged` counts the 256 px images.
    """

    fidelity = 1.0
    faceless: tuple[int, ...] = ()
    enlarged: list[int]
    restless = 0.0

    def __init__(self, pipeline: Any, super_resolution: bool = False) -> None:
        self.pipeline = SimpleNamespace(
            check=lambda **options: None,
            base_manifest=SimpleNamespace(
                id_vector_model="sface",
                unet=SimpleNamespace(identity_dim=DIM),
                sampling=SimpleNamespace(steps=25, guidance_scale=2.0),
            ),
        )

    def people(self, files: Any) -> list[Person]:
        grey = np.full((64, 64, 3), 100, np.uint8)
        return [Person(f"{row:02d}", grey, vector) for row, vector in enumerate(people_vectors())]

    def embed(self, images: np.ndarray) -> np.ndarray:
        """Each picture's vector is that of the first person with noise that grows with what was done to the picture."""
        change = np.abs(images.astype(np.float64) - 100).mean(axis=(1, 2, 3)) / 100
        noise = np.random.default_rng(2).standard_normal((len(images), DIM))
        vectors = people_vectors()[0] + 0.1 * (1 + change[:, np.newaxis]) * noise
        vectors[0] = np.nan  # and the first one shows no face
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)

    def enlarge(self, images: np.ndarray, seed: int) -> np.ndarray:
        self.enlarged.append(len(images))
        return images.repeat(4, axis=1).repeat(4, axis=2)

    def generate(self, vectors: np.ndarray, seeds: Any, **options: Any) -> GeneratedFaces:
        same = people_vectors()[0]
        found = self.fidelity * vectors + (1 - self.fidelity) * same
        seeds = np.broadcast_to(seeds, len(vectors))
        amount = self.restless / options.get("guidance_scale", 1.0)
        found = found + amount * np.stack([np.random.default_rng(seed).standard_normal(DIM) for seed in seeds.tolist()])
        found = np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)
        grey = np.clip(128 + 100 * found[:, 2], 0, 255).astype(np.uint8)
        images = np.broadcast_to(grey[:, None, None, None], (len(found), 64, 64, 3)).copy()
        face = np.array([12, 8, 40, 50, 22, 28, 42, 28, 32, 38, 22, 48, 42, 48, 0.9], np.float32)
        detections = np.tile(face, (len(found), 1))
        for row in (row for row in self.faceless if row < len(found)):
            found[row], detections[row] = np.nan, np.nan
        similarity = np.sum(found * vectors, axis=1)
        return GeneratedFaces(images, similarity, found, detections, seconds=0.5)

    def sampling(self, **options: Any) -> SamplingOptions:
        return SamplingOptions(**options)

    def evaluations(self, **options: Any) -> int:
        return 7


def install(monkeypatch: Any, **settings: Any) -> list[int]:
    """Puts the fake in the place of the sheets' generator, with another `fidelity`, `faceless` or `restless`.

    Returns:
        Grows by the number of images shown at 256 px.
    """
    enlarged: list[int] = []
    settings["enlarged"] = enlarged
    monkeypatch.setattr(sheet, "FaceGenerator", type("FaceGenerator", (FakeGenerator,), settings))
    loaded = contextlib.nullcontext(SimpleNamespace(check=lambda **options: None))
    monkeypatch.setattr(sheet, "Pipeline", SimpleNamespace(load=lambda repository, threads: loaded))
    return enlarged
