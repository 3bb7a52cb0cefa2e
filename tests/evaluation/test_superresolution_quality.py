"""PSNR and SSIM against scikit-image; crops; the comparison end to end on a tiny network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from tiny_bundle import write_tiny_bundle

from id3pm.config import SamplingOptions
from id3pm.errors import InvalidInputError
from id3pm.evaluation.super_resolution.study import (
    HELD_OUT_PHOTOGRAPHS,
    compare,
    enlarge,
    held_out_photographs,
    lanczos,
    photograph_crops,
    psnr,
    ssim,
)
from id3pm.formats.images import area_reduce
from id3pm.training.photographs import SOURCES


@pytest.fixture(scope="module")
def pairs() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    truth = np.stack([data.chelsea()[100:164, 150:214], data.astronaut()[60:124, 200:264]])
    return lanczos(area_reduce(truth, 4), 64), truth


def test_psnr_equals_scikit_images(pairs: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    images, truth = pairs
    expected = [peak_signal_noise_ratio(b, a, data_range=255) for a, b in zip(images, truth, strict=True)]
    np.testing.assert_allclose(psnr(images, truth), expected)
    assert np.isinf(psnr(truth, truth)).all()


def test_ssim_equals_scikit_images(pairs: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> None:
    images, truth = pairs
    expected = [
        structural_similarity(
            a, b, data_range=255, channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for a, b in zip(images, truth, strict=True)
    ]
    np.testing.assert_allclose(ssim(images, truth), expected, rtol=1e-6)
    np.testing.assert_allclose(ssim(truth, truth), 1.0)


def test_photographs_are_none_that_were_trained_on() -> None:
    assert len(held_out_photographs()) == 4
    for package, names in HELD_OUT_PHOTOGRAPHS.items():
        assert not set(names) & set(SOURCES[package])


def test_crops_are_spread_over_large_enough_photographs() -> None:
    numbers = np.arange(9, dtype=np.uint8).repeat(4).reshape(3, 12).repeat(4, axis=0)[..., None].repeat(3, axis=-1)
    crops = photograph_crops([numbers, numbers[:3]], size=4)
    assert crops[:, 0, 0, 0].tolist() == [1, 3, 5, 7]
    with pytest.raises(InvalidInputError, match="none of the 1 photographs has 13x13 pixels"):
        photograph_crops([numbers], size=13)


class Brightness:
    """A judge for which the mean brightness is the person; black pictures show no face."""

    name, key, independent, centred = "brightness", "1", False, False

    def embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        means = images.mean(axis=(1, 2, 3)) / 255 * np.pi / 2
        return np.where(means[:, None] > 0, np.stack([np.cos(means), np.sin(means)], axis=1), np.nan).astype(np.float32)


def test_network_and_lanczos_are_compared_at_another_size(
    tmp_path: Path, pairs: tuple[NDArray[np.uint8], NDArray[np.uint8]]
) -> None:
    write_tiny_bundle(tmp_path)
    truth = pairs[1][:, :16, :16]  # the network is deployed at 32 px
    done: list[None] = []
    options = SamplingOptions(steps=2, guidance_scale=1.0, dynamic_threshold=0.0)
    enlarged = enlarge(tmp_path, truth, options, lambda: done.append(None))
    assert len(done) == 2
    assert enlarged.low.shape == (2, 8, 8, 3)
    assert enlarged.network.shape == enlarged.lanczos.shape == truth.shape
    np.testing.assert_array_equal(enlarge(tmp_path, truth, options, lambda: None).network, enlarged.network)
    found = compare("faces", enlarged, Brightness())
    plain, network = found.qualities
    assert (found.count, found.sizes) == (2, (8, 16))
    assert plain.psnr == pytest.approx(psnr(enlarged.lanczos, truth).mean())
    assert network.ssim == pytest.approx(ssim(enlarged.network, truth).mean())
    assert plain.perceptual > 0.0
    assert plain.identity is not None and plain.identity > 0.999  # resampling keeps the mean
    assert plain.no_face == 0.0
    assert compare("textures", enlarged, None).qualities[0].identity is None
