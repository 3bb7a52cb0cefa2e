"""Similarity to photographs, on people whose similarities are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from made_up_people import ColorJudge, color_of, people
from skimage.data import astronaut

from id3pm.errors import InvalidInputError
from id3pm.evaluation.identity.photographs import People, likenesses, people_of, summary
from id3pm.face.stage import FaceStage


def made_up(count: int) -> People:
    vectors = people(count)
    return People([f"p{i}" for i in range(count)], color_of(vectors), vectors)


def test_own_images_are_compared_with_those_of_everyone_else() -> None:
    given = made_up(6)
    found = likenesses(given, lambda vectors, seeds: color_of(vectors), [ColorJudge()], seeds=3)
    assert [one.name for one in found] == given.names
    cosines = given.vectors @ given.vectors.T
    for person, one in enumerate(found):
        assert one.similarity == pytest.approx(1.0, abs=1e-3)
        assert one.strangers == pytest.approx((cosines[person].sum() - 1.0) / 5, abs=0.02)
        assert (one.rank, one.no_face) == (0, 0.0)
    (mean,) = summary(found)
    assert mean == {"judge": "color", "similarity": pytest.approx(1.0, abs=1e-3), **mean}


def test_images_of_somebody_else_and_without_a_face_are_told() -> None:
    given = made_up(4)

    def others(vectors: Any, seeds: Any) -> Any:
        images = color_of(np.roll(given.vectors, 1, axis=0)[np.repeat(np.arange(4), 2)])
        images[0] = 0  # no face
        return images

    found = likenesses(given, others, [ColorJudge(), ColorJudge(independent=True)], seeds=2)
    assert [one.judge for one in found] == ["color"] * 4 + ["independent"] * 4
    assert found[0].no_face == 0.5 and found[1].no_face == 0.0
    assert all(one.rank >= 1 for one in found[:4]), "someone else's images are the most alike"
    assert max(one.similarity for one in found[:4]) < 0.9


def test_every_face_of_a_photograph_is_one_person(face_folder: Any) -> None:
    stage = FaceStage.load(face_folder, threads=1)
    photo = np.ascontiguousarray(astronaut()[:256, 96:352])
    both = np.concatenate([photo, photo[:, ::-1]], axis=1)
    found = people_of({"two.png": both, "one.png": photo}, stage)
    assert found.names == ["two.png 1", "two.png 2", "one.png"]
    assert found.crops.shape == (3, 256, 256, 3)
    assert float(found.vectors[0] @ found.vectors[2]) > 0.9
    with pytest.raises(InvalidInputError, match="1 faces in 2 photographs"):
        people_of({"one.png": photo, "none.png": np.zeros_like(photo)}, stage)
