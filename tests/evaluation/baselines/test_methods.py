"""Gaussian sampling and GAN search with a black box whose answers are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from id3pm.errors import InvalidInputError
from id3pm.evaluation.baselines import gaussian
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


def test_the_neighbourhood_shrinks_but_in_the_authors_code() -> None:
    start, vectors = np.array([[3.0, 0.0]], np.float32), np.array([[1.0, 0.0]], np.float32)
    spreads: list[float] = []

    class Watched(Plane):
        def images(self, z: NDArray[np.float32]) -> NDArray[np.uint8]:
            spreads.append(float(z.std(axis=0).mean()))
            return super().images(z)

    for authors_code, last in ((False, 0.98**199), (True, 1.0)):
        spreads.clear()
        search = GanSearch(Watched(), start, vectors, "plane", authors_code=authors_code)
        search.reconstruct(vectors[0], BlackBox(read_plane), 16 * 200, 0, lambda count: None)
        assert len(spreads) == 201  # the last one is the picture that was found
        assert spreads[0] == pytest.approx(1.0, rel=0.3) and spreads[-2] == pytest.approx(last, rel=0.5)


def test_the_width_of_blobs_follows_the_last_batch_in_the_authors_code(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []

    def watched(random: np.random.Generator, cosine: float) -> NDArray[np.float32]:
        told.append(cosine)
        return blobs(random, cosine)

    def falling(images: Sequence[NDArray[np.uint8]], aligned: bool) -> NDArray[np.float32]:
        angle = np.pi / 2.0 * len(told) / 12.0
        return np.tile(np.array([np.cos(angle), np.sin(angle)], np.float32), (len(images), 1))

    monkeypatch.setattr(gaussian, "blobs", watched)
    target = np.array([1.0, 0.0], np.float32)
    lasts = {}
    for authors_code in (False, True):
        told.clear()
        GaussianSampling(authors_code=authors_code).reconstruct(target, BlackBox(falling), 12 * 80, 0, lambda n: None)
        assert told[:10] == [-1.0] * 10  # ten starts
        lasts[authors_code] = told[10:]
    first = np.cos(np.pi / 2.0 / 12.0)  # of the first start, which is the best
    assert lasts[False] == pytest.approx([first, first], abs=1e-6)
    assert lasts[True] == pytest.approx([first, np.cos(np.pi / 2.0 * 11.0 / 12.0)], abs=1e-6)


def test_a_bank_without_faces_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="no face in the 2 images of the bank"):
        GanSearch(Plane(), np.zeros((2, 2), np.float32), np.full((2, 2), np.nan, np.float32), "x")
