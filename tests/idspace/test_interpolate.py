from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from id3pm.errors import InvalidInputError
from id3pm.idspace.tables import spread
from id3pm.idspace.vectors import lerp, mean_vector, slerp

DIM = 16


def people(seed: int, count: int = 2) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, DIM))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.arccos(np.clip(np.sum(np.float64(a) * b, axis=-1), -1, 1))


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10_000), t=st.floats(-0.5, 1.5), scale=st.floats(1e-3, 1e3))
def test_slerp_goes_along_the_great_circle_at_constant_speed(seed: int, t: float, scale: float) -> None:
    a, b = people(seed)
    between = slerp(a * scale, b, t)
    assert between.dtype == np.float32
    assert np.linalg.norm(between) == pytest.approx(1.0, abs=1e-6)
    along = abs(t) * angle(a, b)
    assert angle(between, a) == pytest.approx(min(along, 2 * np.pi - along), abs=2e-3)  # the shorter way back
    rest = between - np.linalg.lstsq(np.stack([a, b]).T, between, rcond=None)[0] @ np.stack([a, b])
    assert np.abs(rest).max() < 1e-6  # in the plane of both


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000), t=st.floats(0.0, 1.0))
def test_interpolation_is_symmetric_and_ends_at_its_ends(seed: int, t: float) -> None:
    a, b = people(seed)
    for between in (slerp, lerp):
        assert between(a, b, t) == pytest.approx(between(b, a, 1.0 - t), abs=1e-6)
        assert between(a, b, [0.0, 1.0]) == pytest.approx(np.stack([a, b]), abs=1e-6)


def test_lerp_takes_the_same_path_but_another_speed() -> None:
    a, b = people(1)
    half = angle(lerp(a, b, 0.5), a) / angle(a, b)
    quarter = angle(lerp(a, b, 0.25), a) / angle(a, b)
    assert half == pytest.approx(0.5, abs=1e-4)
    assert quarter < 0.249
    assert np.linalg.matrix_rank(np.stack([a, b, lerp(a, b, 0.25)]), tol=1e-5) == 2


@pytest.mark.parametrize("gap", [0.0, 1e-9, 1e-7, 1e-5, 1e-3])
def test_slerp_between_near_vectors_is_smooth(gap: float) -> None:
    a, b = people(2)
    near = a + gap * b
    near /= np.linalg.norm(near)
    assert slerp(a, near, 0.25) == pytest.approx(0.75 * a + 0.25 * near, abs=1e-6)


def test_shapes_broadcast_over_people_and_shares() -> None:
    first, second = people(3, 4), people(4, 4)
    assert slerp(first[0], second[0], 0.3).shape == (DIM,)
    sweep = slerp(first[0], second[0], np.linspace(0, 1, 5))
    assert sweep.shape == (5, DIM) and np.array_equal(sweep[2], slerp(first[0], second[0], 0.5))
    grid = slerp(first[:, np.newaxis], second[:, np.newaxis], [0.0, 0.3])
    assert grid.shape == (4, 2, DIM) and np.array_equal(grid[3, 1], slerp(first[3], second[3], 0.3))


@pytest.mark.parametrize("between", [slerp, lerp])
@pytest.mark.parametrize(
    ("a", "b", "t", "message"),
    [
        (np.zeros(DIM), np.ones(DIM), 0.5, "a is zero"),
        (np.ones(DIM), -2.0 * np.ones(DIM), 0.5, "opposite directions"),
        (np.ones(DIM), np.ones(DIM + 1), 0.5, "a has 16 numbers and b 17"),
        (np.full(DIM, np.nan), np.ones(DIM), 0.5, "a is not finite"),
        (np.ones(DIM), np.ones(DIM), np.inf, "t is not finite"),
        (["one"], np.ones(DIM), 0.5, "a: expected numbers"),
        (1.0, np.ones(DIM), 0.5, "a has shape"),
    ],
)
def test_what_has_no_way_between_is_refused(between: object, a: object, b: object, t: float, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        between(a, b, t)  # type: ignore[operator]


def test_lerp_of_opposites_is_fine_outside_the_middle() -> None:
    a = people(5)[0]
    assert lerp(a, -a, 0.25) == pytest.approx(a, abs=1e-6)


def test_the_mean_is_nearest_to_all_and_ignores_lengths() -> None:
    vectors = people(6, 5) + 2.0 * people(7)[0]
    mean = mean_vector(vectors)
    assert mean == pytest.approx(mean_vector(vectors * np.arange(1, 6)[:, np.newaxis]), abs=1e-6)
    rows = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    best = (rows @ mean).sum()
    assert all((rows @ other).sum() < best for other in people(8, 50))
    assert spread(vectors) == pytest.approx(np.degrees(angle(rows, mean)), abs=1e-4)
    assert mean_vector(vectors[:1]) == pytest.approx(rows[0], abs=1e-6)


@pytest.mark.parametrize("vectors", [np.zeros((2, 4)), np.ones(4), np.empty((0, 4)), [np.ones(4), -np.ones(4)]])
def test_what_has_no_mean_is_refused(vectors: object) -> None:
    with pytest.raises(InvalidInputError, match="zero|need \\[N, D\\]"):
        mean_vector(vectors)  # type: ignore[arg-type]
