"""The client's axes, directions and files of vectors against the library's; the maths behind them is one source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import id3pm_client.latent as ours
from id3pm.idspace.directions import Directions
from id3pm.idspace.files import read_vectors, write_vectors
from id3pm.idspace.fitting import fit_direction
from id3pm.idspace.pca import Pca, fit_pca
from id3pm_client._vectors import load_vectors, save_vectors

DEMO = Path(__file__).parents[2] / "bundles" / "demo" / "latent"
DIM = 24
PEOPLE = np.random.default_rng(0).standard_normal((300, DIM)).astype(np.float32)
AMOUNTS = np.linspace(-2, 2, 5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that the library writes."""
    folder = tmp_path_factory.mktemp("latent")
    fit_pca(PEOPLE, id_vector_model="sface", trained_on="made up").save(folder / "pca.npz")
    fitted = [
        fit_direction(
            PEOPLE,
            labels,
            name=name,
            label=name,
            low="-",
            high="+",
            id_vector_model="sface",
            trained_on="made up",
        )
        for name, labels in (("age", PEOPLE[:, 0]), ("glasses", PEOPLE[:, 1] + PEOPLE[:, 0] > 0))
    ]
    Directions(fitted[0].space, (fitted[0], fitted[1], fitted[1].orthogonal_to(fitted[0]))[:2]).save(
        folder / "directions.npz"
    )
    return folder


def test_principal_axes_are_equal(folder: Path) -> None:
    here, there = ours.Pca.load(folder / "pca.npz"), Pca.load(folder / "pca.npz")
    assert here.id_vector_model == there.space.id_vector_model
    assert np.array_equal(here.variances, there.variances)
    assert np.array_equal(here.coordinates(PEOPLE), there.coordinates(PEOPLE))
    for axis in (0, DIM - 1):
        assert np.array_equal(here.walk(PEOPLE[3], axis, AMOUNTS), there.walk(PEOPLE[3], axis, AMOUNTS))
    for k in (0, 1, 5, DIM):
        assert np.array_equal(here.project(PEOPLE, k), there.project(PEOPLE, k))


def test_directions_are_equal(folder: Path) -> None:
    here, there = ours.Directions.load(folder / "directions.npz"), Directions.load(folder / "directions.npz")
    assert list(here) == list(there) and here.id_vector_model == "sface"
    for name, direction in here.items():
        card = there[name].card
        assert (direction.step, direction.low, direction.high, direction.label) == (
            card.step,
            card.low,
            card.high,
            card.label,
        )
        assert np.array_equal(direction.apply(PEOPLE[5], AMOUNTS), there[name].apply(PEOPLE[5], AMOUNTS))
    without = here["glasses"].orthogonal_to(here["age"])
    expected = there["glasses"].orthogonal_to(there["age"])
    assert without.orthogonal_names == expected.card.orthogonal_to == ("age",)
    assert np.array_equal(without.apply(PEOPLE, 2), expected.apply(PEOPLE, 2))
    assert not np.array_equal(without.apply(PEOPLE, 2), here["glasses"].apply(PEOPLE, 2))


def test_saved_vectors_keep_the_name_of_their_model_both_ways(tmp_path: Path) -> None:
    write_vectors(tmp_path / "theirs.npz", PEOPLE[:2], "sface")
    assert (tmp_path / "theirs.npz").stat().st_mode & 0o777 == 0o600, "biometric data"
    vectors, model = load_vectors(tmp_path / "theirs.npz")
    assert model == "sface" and np.array_equal(vectors, PEOPLE[:2])
    save_vectors(tmp_path / "ours.npz", PEOPLE[0], "sface")
    found = read_vectors(tmp_path / "ours.npz")
    assert found.id_vector_model == "sface" and np.array_equal(found.vectors, PEOPLE[:1])
    save_vectors(tmp_path / "plain.npy", PEOPLE[0], "sface")
    assert read_vectors(tmp_path / "plain.npy").id_vector_model is None
    assert np.array_equal(np.load(tmp_path / "plain.npy"), PEOPLE[0])


def test_both_read_what_the_demo_bundle_carries() -> None:
    here, there = ours.Pca.load(DEMO / "pca.npz"), Pca.load(DEMO / "pca.npz")
    person = there.mean + 0.5 * there.axes[0]
    assert np.array_equal(here.walk(person, 0, 0.5), there.walk(person, 0, 0.5))
    assert list(ours.Directions.load(DEMO / "directions.npz")) == list(Directions.load(DEMO / "directions.npz"))
