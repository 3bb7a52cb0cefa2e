from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from id3pm.errors import InvalidInputError
from id3pm.idspace.pca import Pca, fit_pca

DIM, PEOPLE = 8, 500


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """People around a mean, spread most along the second coordinate, then along the fifth."""
    random = np.random.default_rng(0)
    spread = np.array([0.1, 0.5, 0.1, 0.1, 0.3, 0.1, 0.1, 0.1])
    rows = (
        0.1 * random.standard_normal((PEOPLE, DIM))
        + np.eye(DIM)[0] * 2
        + spread * random.standard_normal((PEOPLE, DIM))
    )
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


@pytest.fixture(scope="module")
def pca(vectors: np.ndarray) -> Pca:
    return fit_pca(vectors, id_vector_model="sface", trained_on="made-up people")


def test_axes_are_those_of_the_covariance(pca: Pca, vectors: np.ndarray) -> None:
    values, columns = np.linalg.eigh(np.cov(vectors.astype(np.float64).T))  # the live oracle
    assert pca.variances == pytest.approx(values[::-1], rel=1e-4)
    assert np.abs(np.sum(pca.axes * columns.T[::-1], axis=1)) == pytest.approx(np.ones(DIM), abs=1e-3)
    assert pca.axes @ pca.axes.T == pytest.approx(np.eye(DIM), abs=1e-9)
    assert np.abs(pca.axes[0]).argmax() == 1 and np.abs(pca.axes[1]).argmax() == 4
    assert all(axis[np.abs(axis).argmax()] > 0 for axis in pca.axes)
    assert pca.explained.sum() == pytest.approx(1.0)
    assert pca.coordinates(vectors).var(axis=0, ddof=1) == pytest.approx(pca.variances, rel=1e-6)


def test_a_step_is_one_norm_along_the_axis_then_back_to_the_sphere(pca: Pca, vectors: np.ndarray) -> None:
    person = vectors[3].astype(np.float64)
    walked = pca.walk(3.0 * person, 1, [-0.5, 0.0, 0.5])
    expected = person + np.array([[-0.5], [0.0], [0.5]]) * pca.axes[1]
    assert walked == pytest.approx(expected / np.linalg.norm(expected, axis=1, keepdims=True), abs=1e-6)
    assert np.all(np.diff(pca.coordinates(walked)[:, 1]) > 0.3)
    assert pca.walk(vectors, 0, 0.3).shape == vectors.shape


def test_projection_keeps_k_coordinates_and_all_of_them_give_the_vector_back(pca: Pca, vectors: np.ndarray) -> None:
    person = vectors[7]
    assert pca.project(person, DIM) == pytest.approx(person, abs=1e-6)
    assert pca.project(person, 0) == pytest.approx(pca.mean / np.linalg.norm(pca.mean), abs=1e-6)
    inside = pca.mean + pca.axes[:2].T @ (pca.axes[:2] @ (person - pca.mean))
    assert pca.project(person, 2) == pytest.approx(inside / np.linalg.norm(inside), abs=1e-6)
    near = [float(np.sum(pca.project(vectors, k) * vectors, axis=1).mean()) for k in range(DIM + 1)]
    assert near == sorted(near)


def test_a_file_gives_the_same_axes(pca: Pca, vectors: np.ndarray, tmp_path: Path) -> None:
    pca.save(tmp_path / "deep" / "pca.npz")
    again = Pca.load(tmp_path / "deep" / "pca.npz")
    assert again.space == pca.space and (again.count, again.trained_on) == (PEOPLE, "made-up people")
    assert again.walk(vectors, 0, 0.4) == pytest.approx(pca.walk(vectors, 0, 0.4), abs=1e-6)
    assert again.explained == pytest.approx(pca.explained, rel=1e-5)
    pca.save(tmp_path / "second.npz")
    assert (tmp_path / "second.npz").read_bytes() == (tmp_path / "deep" / "pca.npz").read_bytes()


def test_fewer_people_than_numbers_give_fewer_axes(vectors: np.ndarray) -> None:
    few = fit_pca(vectors[:4], id_vector_model="sface", trained_on="four")
    assert few.axes.shape == (3, DIM)
    assert few.project(vectors[:4], 3) == pytest.approx(vectors[:4], abs=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda pca: pca.walk(np.ones(DIM), DIM, 0.1), "axis=8: must be from 0 to 7"),
        (lambda pca: pca.walk(np.ones(DIM), -1, 0.1), "axis=-1"),
        (lambda pca: pca.project(np.ones(DIM), DIM + 1), "k=9: must be from 0 to 8"),
        (lambda pca: pca.walk(np.ones(DIM + 1), 0, 0.1), "vector has 9 numbers: need 8"),
        (lambda pca: pca.project(np.zeros(DIM), 1), "vector is zero"),
        (lambda pca: pca.walk(np.ones(DIM), 0, np.nan), "amount is not finite"),
        (lambda pca: fit_pca(np.ones((1, 3)), id_vector_model="m", trained_on=""), "N of at least 2"),
        (lambda pca: fit_pca(np.ones((5, 3)), id_vector_model="m", trained_on=""), "all the same"),
        (lambda pca: fit_pca(np.eye(3), id_vector_model="", trained_on=""), "need a name"),
    ],
)
def test_what_does_not_fit_is_refused(pca: Pca, call: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        call(pca)


def rewrite(file: Path, change: Any) -> None:
    with np.load(file) as content:
        arrays = {name: content[name] for name in content.files}
    description = json.loads(str(arrays.pop("description")))
    change(description, arrays)
    np.savez(file, description=np.array(json.dumps(description)), **arrays)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text, arrays: text.update(kind="directions"), "is of kind 'directions': need 'pca'"),
        (lambda text, arrays: text.update(schema_version=2), "schema_version=2"),
        (lambda text, arrays: text.update(colour="red"), "has no colour"),
        (lambda text, arrays: text.pop("count"), "needs count"),
        (lambda text, arrays: text.update(identity_dim=9), "shapes"),
        (lambda text, arrays: arrays.pop("mean"), "shapes"),
        (lambda text, arrays: arrays.update(more=np.ones(1)), "shapes"),
        (lambda text, arrays: arrays.update(mean=np.full(DIM, np.nan)), "mean holds values that are not finite"),
        (lambda text, arrays: arrays.update(mean=np.ones(DIM, np.int64)), "mean holds values"),
    ],
)
def test_a_file_that_is_not_right_is_refused(pca: Pca, tmp_path: Path, change: Any, message: str) -> None:
    pca.save(tmp_path / "pca.npz")
    rewrite(tmp_path / "pca.npz", change)
    with pytest.raises(InvalidInputError, match=f"^pca.npz.*{message}"):
        Pca.load(tmp_path / "pca.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04broken", b"text"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pca.npz").write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"pca\.npz is damaged"):
        Pca.load(tmp_path / "pca.npz")
    np.save(tmp_path / "array.npy", np.ones(3))
    with pytest.raises(InvalidInputError, match=r"array\.npy is damaged"):
        Pca.load(tmp_path / "array.npy")


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "pca.npz", description=np.array({"kind": "pca"}, dtype=object))
    with pytest.raises(InvalidInputError, match="pickle"):
        Pca.load(tmp_path / "pca.npz")
