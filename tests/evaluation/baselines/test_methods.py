"""Gaussian sampling and GAN search with a black box whose answers are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from id3pm.errors import InvalidInputError
from id3pm.evaluation.baselines.black_box import NO_FACE, BlackBox
from id3pm.evaluation.baselines.gan_search import GanSearch
from id3pm.evaluation.baselines.gaussian import AMPLITUDE, SIDE, GaussianSampling, blobs


def halves(images: Sequence[NDArray[np.uint8]], aligned: bool) -> NDArray[np.float32]:
    """The brightness of the upper and of the lower half, above a constant; no face in a white picture."""
    assert aligned
    vectors = [[image[:56].mean() + 1.0, image[56:].mean() + 1.0] for image in images]
    return np.array([v if v[0] < 250 else [np.nan, np.nan] for v in vectors], np.float32)


def test_queries_are_counted_and_missing_faces_are_unlike_everything() -> None:
    black_box = BlackBox(halves)
    white = np.full((SIDE, SIDE, 3), 255, np.uint8)
    found = black_box.similarities([white, white * 0], np.array([1.0, 1.0], np.float32), aligned=True)
    assert found.tolist() == pytest.approx([NO_FACE, 1.0]) and black_box.queries == 2


def test_gaussian_sampling_comes_closer_to_the_target_within_its_budget() -> None:
    black_box, target = BlackBox(halves), np.array([1.0, 0.5], np.float32)
    seen: list[int] = []
    found = GaussianSampling().reconstruct(target, black_box, 3300, 0, seen.append)
    start = float(target @ [1.0, 1.0] / np.linalg.norm(target) / np.sqrt(2.0))
    assert found.similarity > start + 0.01
    assert found.queries == black_box.queries == sum(seen) == 3280
    assert found.image[:56].mean() > found.image[56:].mean()
    assert (found.image == found.image[:, ::-1]).all() and (found.image == found.image[:, :, :1]).all()
    again = GaussianSampling().reconstruct(target, BlackBox(halves), 3300, 0, seen.append)
    np.testing.assert_array_equal(found.image, again.image)


def test_blobs_are_mirror_symmetric_and_shrink_with_the_similarity() -> None:
    far, near = (np.abs(blobs(np.random.default_rng(0), cosine, 400)) for cosine in (0.0, 0.9))
    np.testing.assert_allclose(far, far[:, :, ::-1], atol=1e-6)
    assert far.max() <= AMPLITUDE + 1e-6  # half of it, twice where a blob meets its mirror image
    assert far.sum() > 2 * near.sum()


def test_small_budgets_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="800 queries: Gaussian sampling needs 880"):
        GaussianSampling().reconstruct(np.ones(2, np.float32), BlackBox(halves), 800, 0, print)
    search = GanSearch(Plane(), np.zeros((1, 2), np.float32), np.ones((1, 2), np.float32), "x")
    with pytest.raises(InvalidInputError, match="15 queries: GAN search needs 16"):
        search.reconstruct(np.ones(2, np.float32), BlackBox(halves), 15, 0, print)


class Plane:
    """A generator whose images are their latents: the first two pixels of 1 x 2."""

    def images(self, z: NDArray[np.float32]) -> NDArray[np.uint8]:
        return np.clip(128 + 20 * z, 0, 255).astype(np.uint8)[:, None, :, None].repeat(3, axis=3)


def read_plane(images: Sequence[NDArray[np.uint8]], aligned: bool) -> NDArray[np.float32]:
    assert not aligned
    return np.array([image[0, :, 0].astype(np.float32) - 128.0 for image in images])


def test_gan_search_starts_at_the_nearest_of_the_bank_and_improves_on_it() -> None:
    bank = np.array([[3.0, 0.0], [0.0, 3.0], [-3.0, -3.0]], np.float32)
    vectors = bank / np.linalg.norm(bank, axis=1, keepdims=True)
    vectors[2] = np.nan  # no face there
    target = np.array([1.0, 0.4], np.float32)
    black_box = BlackBox(read_plane)
    found = GanSearch(Plane(), bank, vectors, "plane").reconstruct(target, black_box, 170, 0, lambda count: None)
    start = float(vectors[0] @ target / np.linalg.norm(target))
    assert found.similarity > start + 0.02 and found.similarity > 0.99
    assert found.queries == black_box.queries == 160
    said = black_box.similarities([found.image], target, aligned=False)[0]
    assert found.similarity == pytest.approx(said, abs=1e-3)


def test_the_authors_code_neither_shrinks_nor_anneals() -> None:
    """From the target itself nothing is better, so without annealing all rounds look around the start, as widely."""
    start, vectors = np.array([[3.0, 0.0]], np.float32), np.array([[1.0, 0.0]], np.float32)

    class Watched(Plane):
        spread: list[float]

        def images(self, z: NDArray[np.float32]) -> NDArray[np.uint8]:
            self.spread.append(float(np.linalg.norm(z - start, axis=1).mean()))
            return super().images(z)

    found = {}
    for authors_code in (False, True):
        plane = Watched()
        plane.spread = []
        search = GanSearch(plane, start, vectors, "plane", authors_code=authors_code)
        search.reconstruct(vectors[0], BlackBox(read_plane), 16 * 200, 0, lambda count: None)
        found[authors_code] = np.array(plane.spread[:-1])
    assert found[True][-20:].mean() == pytest.approx(np.sqrt(np.pi / 2.0), rel=0.1)  # of a standard normal in 2-D
    assert np.ptp(found[False][-5:]) < 0.3 * np.ptp(found[False])


def test_gaussian_sampling_has_the_quirk_of_the_authors_code_on_request() -> None:
    target = np.array([1.0, 0.5], np.float32)
    plain, quirk = (GaussianSampling(authors_code=each) for each in (False, True))
    first, second = (each.reconstruct(target, BlackBox(halves), 960, 0, lambda count: None) for each in (plain, quirk))
    assert plain.key != quirk.key and (first.image != second.image).any()


def test_a_bank_without_faces_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="no face in the 2 images of the bank"):
        GanSearch(Plane(), np.zeros((2, 2), np.float32), np.full((2, 2), np.nan, np.float32), "x")
