"""Vectors that keep their distance, and how many there can be."""

from __future__ import annotations

import math

import numpy as np
import pytest

from id3pm.errors import InvalidInputError
from id3pm.idspace.space import Space
from id3pm.synthetic.draws import parse_draw
from id3pm.synthetic.identities import choose
from id3pm.synthetic.packing import sphere_bounds

SPACE = Space(id_vector_model="color", identity_dim=3)


def angles(vectors: np.ndarray) -> np.ndarray:
    cosines = vectors.astype(np.float64) @ vectors.T.astype(np.float64)
    return np.degrees(np.arccos(np.clip(cosines[np.triu_indices(len(vectors), 1)], -1, 1)))


def test_any_two_identities_are_the_angle_apart() -> None:
    found = choose("sphere", 12, 40.0, 7, SPACE)
    assert found.vectors.shape == (12, 3)
    assert angles(found.vectors).min() >= 40.0 - 1e-3
    assert found.closest_degrees == pytest.approx(angles(found.vectors).min(), abs=1e-2)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-6)


def test_more_identities_begin_with_the_same_ones() -> None:
    few, many = (choose("sphere", count, 40.0, 7, SPACE) for count in (5, 12))
    np.testing.assert_array_equal(few.vectors, many.vectors[:5])
    assert (choose("sphere", 5, 40.0, 8, SPACE).vectors != few.vectors).any()


def test_too_many_are_refused_with_the_number_that_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("id3pm.synthetic.packing.CHUNK", 64)
    with pytest.raises(InvalidInputError, match=r"identities=100: (\d+) that are at least 40 degrees apart") as error:
        choose("sphere", 100, 40.0, 7, SPACE)
    found = int(str(error.value).split("identities=100: ")[1].split()[0])
    low, high = sphere_bounds(3, 40.0)
    assert low <= found <= high
    assert len(choose("sphere", found, 40.0, 7, SPACE).vectors) == found


@pytest.mark.parametrize(
    ("degrees", "largest"),
    [(180.0 - 1e-6, 2), (120.0, 3), (109.47122, 4), (90.0, 6), (63.43494, 12)],
    ids=["poles", "triangle", "tetrahedron", "octahedron", "icosahedron"],
)
def test_bounds_hold_for_the_known_packings_of_the_sphere(degrees: float, largest: int) -> None:
    low, high = sphere_bounds(3, degrees)
    assert low <= largest <= high
    if degrees > 90:
        assert high == largest
    # Caps in three dimensions have a share of (1 - cos) / 2.
    if degrees < 90:
        assert high == pytest.approx(2 / (1 - math.cos(math.radians(degrees / 2))), rel=1e-3)


def test_people_are_taken_in_order_and_may_be_thinned() -> None:
    people = np.array([[2, 0, 0], [1, 0.01, 0], [0, 3, 0]], np.float32)
    everyone = choose("people", None, 0.0, 0, SPACE, people=people)
    assert everyone.origins == ["people 0", "people 1", "people 2"] and everyone.closest_degrees < 1
    assert choose("people", 2, 30.0, 0, SPACE, people=people).origins == ["people 0", "people 2"]
    with pytest.raises(
        InvalidInputError, match="identities=3: 2 that are at least 30 degrees apart were found among 3"
    ):
        choose("people", 3, 30.0, 0, SPACE, people=people)


def test_between_people_lies_on_the_great_circle() -> None:
    people = np.eye(3, dtype=np.float32)[:2]
    found = choose("between", 8, 0.0, 1, SPACE, people=people, share=parse_draw("0.3..0.7", "share"))
    assert np.abs(found.vectors[:, 2]).max() < 1e-6
    degrees = np.degrees(np.arctan2(found.vectors[:, 1], found.vectors[:, 0]))
    assert (degrees >= 0.3 * 90 - 1e-3).all() and (degrees <= 0.7 * 90 + 1e-3).all() and len(set(degrees)) == 8
    assert found.origins[0].startswith("people ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source": "people"}, "source people: needs --people"),
        ({"source": "sphere", "count": None}, "say how many identities"),
        ({"source": "pca"}, "source pca: needs --pca"),
        ({"source": "sphere", "least_degrees": math.nan}, "least_angle=nan: must be from 0"),
        ({"source": "people", "people": np.full((2, 3), np.nan)}, "a person's vector is not finite"),
        ({"source": "people", "people": np.zeros((2, 3))}, "a person's vector is zero"),
        ({"source": "people", "people": np.ones((2, 4))}, "has 4 numbers: need 3"),
        ({"source": "between", "people": np.ones((1, 3))}, "needs two people or more"),
    ],
    ids=str,
)
def test_what_is_missing_or_wrong_is_named(arguments: dict, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        choose(**{"count": 2, "least_degrees": 0.0, "seed": 0, "space": SPACE, **arguments})
