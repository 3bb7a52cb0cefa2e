"""Photographs that scientific Python packages carry, and crops of pictures of any size."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from id3pm.formats.photo_decoding import decode_photo

SOURCES = {
    "skimage": ("data/astronaut.png", "data/chelsea.png", "data/coffee.png", "data/rocket.jpg"),
    "matplotlib": ("mpl-data/sample_data/*.jpg",),
}
"""Files (or patterns) by package, all free of copyright or CC0: colour photographs, larger than a training crop."""
SCALES = (1, 2, 3)


def packaged_photographs(least_size: int) -> list[NDArray[np.uint8]]:
    """The photographs of the packages that are installed, each at full, half and third size, uint8 [H, W, 3].

    Reduced copies are sharp to the last pixel, as generated images are; photographs at full size are often not.

    Args:
        least_size: Copies with a side shorter than this are left out.
    """
    pictures = []
    for package, names in SOURCES.items():
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            for name in names:
                for file in sorted(Path(folder).glob(name)):
                    pictures += _reduced(decode_photo(file.read_bytes()))
    return [picture for picture in pictures if min(picture.shape[:2]) >= least_size]


def _reduced(photo: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    copies = []
    for scale in SCALES:
        height, width = photo.shape[0] // scale, photo.shape[1] // scale
        blocks = photo[: height * scale, : width * scale].reshape(height, scale, width, scale, 3)
        copies.append(np.rint(blocks.mean(axis=(1, 3), dtype=np.float32)).astype(np.uint8))
    return copies


def random_crops(pictures: Sequence[NDArray[np.uint8]], size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One square of `size` pixels from each picture [H, W, 3], at a uniform place: uint8 [N, size, size, 3]."""
    crops = np.empty((len(pictures), size, size, 3), np.uint8)
    for crop, picture in zip(crops, pictures, strict=True):
        top, left = (int(rng.integers(side - size + 1)) for side in picture.shape[:2])
        crop[:] = picture[top : top + size, left : left + size]
    return crops
