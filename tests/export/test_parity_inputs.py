from __future__ import annotations

import numpy as np
import tiny_engines

from id3pm.export.parity.inputs import dead_leaves, forward_rows


def test_a_picture_is_a_function_of_its_seed() -> None:
    picture = dead_leaves(3, 32)
    assert picture.shape == (3, 32, 32) and picture.dtype == np.float32
    assert np.array_equal(picture, dead_leaves(3, 32))
    assert not np.array_equal(picture, dead_leaves(4, 32))
    assert -1 <= picture.min() < -0.3 and 0.3 < picture.max() <= 1


def test_the_same_scene_at_every_size() -> None:
    large, small = dead_leaves(0, 128), dead_leaves(0, 32)
    averaged = large.reshape(3, 32, 4, 32, 4).mean(axis=(2, 4))
    assert np.corrcoef(averaged.ravel(), small.ravel())[0, 1] > 0.95


def test_neighbouring_pixels_are_alike_as_in_a_photograph() -> None:
    picture = np.stack([dead_leaves(seed, 64) for seed in range(4)])
    assert np.corrcoef(picture[..., 1:].ravel(), picture[..., :-1].ravel())[0, 1] > 0.8


def test_the_forward_rows_go_from_clean_to_noise() -> None:
    rows = forward_rows(tiny_engines.BASE, tiny_engines.BASE_DIFFUSION)
    likeness = [
        float(np.corrcoef(row["x"].ravel(), dead_leaves(number // 2, 16).ravel())[0, 1])
        for number, (_, row) in enumerate(rows)
    ]
    assert likeness[0] > 0.99 and abs(likeness[-1]) < 0.15
    assert likeness[::2] == sorted(likeness[::2], reverse=True)
    null = [row for (_, condition), row in rows if condition == "null"]
    assert all((row["identity"] == 0).all() and (row["attributes"] == -1).all() for row in null)
    given = [row for (_, condition), row in rows if condition == "conditional"]
    assert all(np.isclose(np.linalg.norm(row["identity"]), 1) and (row["attributes"] >= 0).all() for row in given)
