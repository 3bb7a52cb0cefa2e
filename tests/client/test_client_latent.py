"""The client's ID-vector space; tests/contract compares its numbers with the library's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from id3pm_client import Embedding, InvalidRequestError
from id3pm_client.latent import Direction, Directions, Pca, lerp, mean_vector, slerp

DIM = 6
CARD = {
    "name": "age",
    "label": "years",
    "low": "young",
    "high": "old",
    "step": 0.1,
    "model": "linear",
    "score": None,
    "trained_on": "made up",
    "orthogonal_to": [],
}


def write(path: Path, description: dict[str, Any], **arrays: Any) -> Path:
    np.savez(path, description=np.array(json.dumps(description)), **arrays)
    return path


def directions_file(path: Path, cards: Any = None, **changes: Any) -> Path:
    description = {"kind": "directions", "schema_version": 1, "id_vector_model": "sface", "identity_dim": DIM}
    cards = [CARD, {**CARD, "name": "hat"}] if cards is None else cards
    vectors = changes.pop("vectors", np.eye(DIM, dtype=np.float32)[:2])
    return write(path, {**description, "directions": cards, **changes}, vectors=vectors)


def pca_file(path: Path, **changes: Any) -> Path:
    description = {"kind": "pca", "schema_version": 1, "id_vector_model": "sface", "identity_dim": DIM}
    arrays = {
        "mean": np.full(DIM, 0.1, np.float32),
        "axes": np.eye(DIM, dtype=np.float32),
        "variances": np.ones(DIM, np.float32),
        "total_variance": np.float32(DIM),
    }
    return write(path, {**description, "count": 9, "trained_on": "made up", **changes}, **arrays)


def test_a_direction_moves_and_an_orthogonal_one_leaves_the_other_alone(tmp_path: Path) -> None:
    vectors = np.zeros((2, DIM), np.float32)
    vectors[0, 0] = vectors[1, :2] = 1.0
    directions = Directions.load(directions_file(tmp_path / "d.npz", vectors=vectors))
    age, hat = directions["age"], directions["hat"]
    face = np.full(DIM, 3.0)
    moved = age.apply(face, [-2, 0, 2])
    assert moved.shape == (3, DIM) and np.linalg.norm(moved, axis=1) == pytest.approx([1, 1, 1])
    assert moved[0, 0] < moved[1, 0] < moved[2, 0]
    assert age.vector @ hat.vector > 0.5 and abs(hat.orthogonal_to(age).vector @ age.vector) < 1e-12
    with pytest.raises(InvalidRequestError, match="lies in the span"):
        age.orthogonal_to(age)
    short = Direction("short", np.ones(2), 0.1, "", "", "")
    with pytest.raises(InvalidRequestError, match="not all of 6 numbers"):
        age.orthogonal_to(short)
    with pytest.raises(KeyError, match="no direction 'beard'; there are age, hat"):
        directions["beard"]


def test_axes_walk_and_project(tmp_path: Path) -> None:
    pca = Pca.load(pca_file(tmp_path / "p.npz"))
    face = np.arange(1.0, DIM + 1)
    assert pca.project(face, DIM) == pytest.approx(face / np.linalg.norm(face), abs=1e-6)
    assert pca.project(face, 0) == pytest.approx(np.full(DIM, DIM**-0.5))
    assert np.argmax(pca.walk(face, 2, 5.0)) == 2
    for call in (lambda: pca.walk(face, DIM, 1), lambda: pca.project(face, -1), lambda: pca.walk(face[:3], 0, 1)):
        with pytest.raises(InvalidRequestError, match="must be from 0|has 3 numbers: need 6"):
            call()


def embedding(row: int, model: str = "sface", dim: int = DIM) -> Embedding:
    return Embedding(np.eye(dim, dtype=np.float32)[row], np.zeros(15, np.float32), 1, model)


def test_embeddings_are_vectors(tmp_path: Path) -> None:
    age = Directions.load(directions_file(tmp_path / "d.npz"))["age"]
    pca, face = Pca.load(pca_file(tmp_path / "p.npz")), embedding(3)
    assert np.array_equal(age.apply(face, [-1, 1]), age.apply(face.vector, [-1, 1]))
    assert np.array_equal(pca.walk(face, 1, 0.5), pca.walk(face.vector, 1, 0.5))
    assert np.array_equal(pca.project([face, face], 2)[1], pca.project(face.vector, 2))
    assert np.array_equal(pca.coordinates(face), pca.coordinates(face.vector))
    faces = [embedding(row, dim=4) for row in (0, 1)]
    assert slerp(faces[0], faces[1], 0.5) == pytest.approx([0.5**0.5, 0.5**0.5, 0, 0])
    assert mean_vector(faces) == pytest.approx([0.5**0.5, 0.5**0.5, 0, 0])


def test_an_embedding_of_another_model_is_refused_though_its_length_fits(tmp_path: Path) -> None:
    directions = Directions.load(directions_file(tmp_path / "d.npz"))
    age, pca, face, other = (
        directions["age"],
        Pca.load(pca_file(tmp_path / "p.npz")),
        embedding(0),
        embedding(1, "dlib"),
    )
    needed = [
        lambda: age.apply(other, 1),
        lambda: age.apply([face.vector, other], 1),
        lambda: pca.walk(other, 0, 1),
        lambda: pca.project(other, 2),
        lambda: pca.coordinates([other, other]),
    ]
    for call in needed:
        with pytest.raises(InvalidRequestError, match="an ID vector of dlib, where one of sface is needed"):
            call()
    for mixed in (lambda: slerp(face, other, 0.5), lambda: lerp(face, other, 0.5), lambda: mean_vector([face, other])):
        with pytest.raises(InvalidRequestError, match="vectors of dlib, sface: pass those of one FR model"):
            mixed()
    elsewhere = Directions.load(directions_file(tmp_path / "e.npz", id_vector_model="dlib"))
    with pytest.raises(InvalidRequestError, match="different FR models"):
        age.orthogonal_to(elsewhere["hat"])
    by_hand = Direction("by hand", np.eye(DIM)[2], 0.1, "", "", "")
    assert by_hand.apply(other, 1).shape == (DIM,), "a direction that does not name a model takes any"
    assert age.orthogonal_to(by_hand).vector == pytest.approx(age.vector)


@pytest.mark.parametrize(
    "call",
    [
        lambda: slerp(np.zeros(3), np.ones(3), 0.5),
        lambda: slerp(np.ones(3), -np.ones(3), 0.5),
        lambda: lerp(np.ones(3), -np.ones(3), 0.5),
        lambda: slerp(np.ones(3), np.ones(4), 0.5),
        lambda: slerp("face.jpg", np.ones(4), 0.5),
        lambda: slerp(np.ones(3), np.ones(3), np.nan),
        lambda: mean_vector(np.ones(3)),
        lambda: mean_vector([np.ones(3), -np.ones(3)]),
        lambda: mean_vector([]),
    ],
)
def test_what_has_no_direction_is_refused(call: Any) -> None:
    with pytest.raises(InvalidRequestError):
        call()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "pca"}, "of kind 'pca'"),
        ({"schema_version": 2}, "version 2"),
        ({"colour": 1}, "colour"),
        ({"cards": [{**CARD, "colour": 1}, CARD]}, "exactly"),
        ({"cards": [CARD]}, "shapes"),
        ({"identity_dim": 7}, "shapes"),
        ({"vectors": np.full((2, DIM), np.nan)}, "not finite"),
        ({"vectors": np.zeros((2, DIM))}, "is zero"),
    ],
)
def test_a_file_that_is_not_right_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        Directions.load(directions_file(tmp_path / "d.npz", **changes))


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"PK\x03\x04"):
        (tmp_path / "p.npz").write_bytes(content)
        with pytest.raises(InvalidRequestError, match=r"p\.npz is damaged"):
            Pca.load(tmp_path / "p.npz")
    with pytest.raises(FileNotFoundError):
        Pca.load(tmp_path / "none.npz")
    with pytest.raises(InvalidRequestError, match="of kind 'directions'"):
        Pca.load(directions_file(tmp_path / "d.npz"))
