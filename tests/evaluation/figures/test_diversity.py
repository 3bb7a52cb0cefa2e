"""How far apart images are, and what their tones are like: known answers."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.color import rgb2gray

from id3pm.evaluation.figures.common import mean
from id3pm.evaluation.figures.diversity import contrast, interval, pixels_apart, saturated, vectors_apart


def test_vectors_are_apart_by_the_mean_of_all_pairs_of_seeds_whatever_their_lengths() -> None:
    east, north = np.array([2.0, 0.0], np.float32), np.array([0.0, 0.5], np.float32)
    vectors = np.stack([[east, east, east], [east, north, -east]])
    # Pairs of the second person: right angle, opposite, right angle.
    assert vectors_apart(vectors) == pytest.approx([0.0, (1 + 2 + 1) / 3])


def test_faces_that_were_not_found_are_left_out() -> None:
    east, north, none = [1.0, 0.0], [0.0, 1.0], [np.nan, np.nan]
    vectors = np.array([[east, north, none], [east, none, none]], np.float32)
    apart = vectors_apart(vectors)
    assert apart[0] == pytest.approx(1.0) and np.isnan(apart[1])
    assert mean(apart) == pytest.approx(1.0) and np.isnan(mean(apart[1:]))
    assert interval(apart) == pytest.approx((1.0, 1.0)) and np.isnan(interval(apart[1:])).all()


def test_pixels_are_apart_by_grey_levels() -> None:
    images = np.zeros((2, 3, 4, 4, 3), np.uint8)
    images[1, 1], images[1, 2] = 30, 250  # and 250 - 0 does not wrap around
    assert pixels_apart(images) == pytest.approx([0.0, (30 + 250 + 220) / 3])


def test_contrast_is_of_each_image_and_not_between_them() -> None:
    random = np.random.default_rng(0)
    flat = np.broadcast_to(np.array([0, 90, 255], np.uint8)[:, None, None, None], (3, 8, 8, 3))
    assert contrast(flat) == pytest.approx([0.0, 0.0, 0.0], abs=1e-9), "however much people differ"
    images = random.integers(0, 256, (2, 8, 8, 3), np.uint8)
    # scikit-image's weights are those of BT.709, which are not far.
    assert contrast(images) == pytest.approx((255 * rgb2gray(images)).std(axis=(1, 2)), rel=0.15)
    halves = np.zeros((1, 8, 8, 3), np.uint8)
    halves[:, :4] = 100
    assert contrast(halves) == pytest.approx([50.0])


def test_saturated_is_the_share_of_values_at_an_end() -> None:
    image = np.full((1, 2, 2, 3), 128, np.uint8)
    image[0, 0, 0] = (0, 255, 254)
    assert saturated(image) == pytest.approx([2 / 12])


def test_the_interval_is_that_of_the_mean_and_the_same_every_time() -> None:
    people = np.random.default_rng(3).normal(0.5, 0.1, 400)
    low, high = interval(people)
    assert low < people.mean() < high
    assert (high - low) / 2 == pytest.approx(1.96 * people.std() / 20, rel=0.1)
    assert interval(people) == (low, high)
