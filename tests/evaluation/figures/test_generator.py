"""The generator generates what it is asked for, and nothing twice."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from id3pm.errors import NoFaceError
from id3pm.evaluation.figures.generator import FaceGenerator


def test_equal_vectors_are_generated_once_and_come_back_in_order() -> None:
    requested: list[np.ndarray] = []

    def generate_64(vectors: np.ndarray, seeds: Any) -> np.ndarray:
        requested.append(vectors)
        shade = np.asarray(vectors[:, 0] * 100, np.uint8)
        return np.broadcast_to(shade[:, None, None, None], (len(vectors), 64, 64, 3))

    stage = SimpleNamespace(identity_dim=4, embed_images=lambda images: [NoFaceError("none")] * len(images))
    generator = FaceGenerator(SimpleNamespace(generate_64=generate_64, face_stage=stage))  # type: ignore[arg-type]
    vectors = np.array([[2, 0, 0, 0], [1, 0, 0, 0], [2, 0, 0, 0], [2, 0, 0, 1]], np.float32)
    faces = generator.generate(vectors, 0)
    assert faces.images[:, 0, 0, 0].tolist() == [200, 100, 200, 200] and len(requested[0]) == 3
    assert np.isnan(faces.similarity).all()
    generator.generate(vectors, [0, 1, 2, 3])
    assert np.array_equal(requested[1], vectors), "different seeds make different images"


@pytest.mark.parametrize(("taught", "asked"), [(None, {"sr_steps": 6}), ((214,), {})])
def test_images_are_enlarged_in_few_steps_and_a_students_in_its_own(taught: Any, asked: dict[str, int]) -> None:
    seen: list[dict[str, Any]] = []
    pipeline = SimpleNamespace(
        sr_manifest=SimpleNamespace(diffusion=SimpleNamespace(student_timesteps=taught)),
        enlarge=lambda images, seed, **options: seen.append(options),
    )
    FaceGenerator(pipeline).enlarge(np.zeros((1, 64, 64, 3), np.uint8), 0)  # type: ignore[arg-type]
    assert seen == [asked]
