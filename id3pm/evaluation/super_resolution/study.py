"""Super-resolution against Lanczos enlargement, on pictures with a known large version.

Two sets: faces held out from training, and crops of photographs at the network's own size. The truth of a held-out face
is its image in the data set, so the network runs at that size, from a quarter of it. The networks are convolutional,
but engines are built for one size, so the bundle's PyTorch network runs here.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from id3pm.config import SamplingOptions
from id3pm.diffusion.noise import STAGE_SR
from id3pm.engines.torch_engine import TorchEngine
from id3pm.errors import Id3pmError, InvalidInputError
from id3pm.evaluation.judges import Judge
from id3pm.evaluation.quality.efficientnet_lite import EfficientNetLite0
from id3pm.evaluation.verification.similarities import distribution
from id3pm.formats.bundle import read_bundle
from id3pm.formats.images import area_reduce, to_chw
from id3pm.formats.photo_decoding import decode_photo
from id3pm.sampling.request import Sample, SampleRequest
from id3pm.sampling.row import OnDone
from id3pm.sampling.scheduler import StepScheduler
from id3pm.sampling.wait_all import collect

HELD_OUT_PHOTOGRAPHS = {
    "skimage": ("data/motorcycle_left.png", "data/retina.jpg", "data/ihc.png", "data/hubble_deep_field.jpg")
}
"""Files by package that the training room does not train on: a room, a retina, stained tissue, galaxies."""
CROPS_PER_PHOTOGRAPH = 4
SSIM_SIGMA, SSIM_RADIUS = 1.5, 5
SSIM_C1, SSIM_C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quality:
    """One method on one set of pictures.

    Attributes:
        method: `lanczos` or `network`.
        psnr: Mean over the pictures, dB.
        ssim: Mean over the pictures.
        perceptual: Mean perceptual distance to the truth, by EfficientNet-Lite0 (`perceptual_distances`).
        identity: Mean cosine similarity of enlarged and true face, NaN where no face was found in any; `None` for
            pictures that show no faces.
        no_face: Share of the enlarged pictures in which no face was found; `None` as above.
    """

    method: str
    psnr: float
    ssim: float
    perceptual: float
    identity: float | None
    no_face: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """Both methods on one set of pictures.

    Attributes:
        pictures: What they are.
        count: How many.
        sizes: Side before and after, in pixels.
        qualities: One per method.
    """

    pictures: str
    count: int
    sizes: tuple[int, int]
    qualities: tuple[Quality, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Enlarged:
    """Pictures for people to look at: uint8 [N, s, s, 3] in, and [N, S, S, 3] by each method and in truth."""

    low: NDArray[np.uint8]
    lanczos: NDArray[np.uint8]
    network: NDArray[np.uint8]
    truth: NDArray[np.uint8]


def enlarge(bundle: Path, truth: NDArray[np.uint8], options: SamplingOptions, on_image: Callable[[], None]) -> Enlarged:
    """Reduces pictures as training does, and enlarges them again by both methods.

    Args:
        bundle: Bundle folder.
        truth: uint8 [N, S, S, 3].
        options: How the network is sampled; picture i has seed i.
        on_image: Called for each picture that the network has finished.

    Raises:
        MissingExtraError: torch is not installed.
        ConfigError: The network does not exist at this size.
    """
    size = truth.shape[1]
    engine = TorchEngine(bundle, "sr", image_size=size)
    assert engine.config.low_res_size is not None
    low = area_reduce(truth, size // engine.config.low_res_size)
    scheduler = StepScheduler(engine, read_bundle(bundle).sr_diffusion, STAGE_SR, max_waiting=len(low))
    requests = [
        SampleRequest(id=str(seed), seed=seed, options=options, low_res=image) for seed, image in enumerate(to_chw(low))
    ]

    def submit(request: SampleRequest, on_done: OnDone) -> None:
        def done(outcome: Sample | Id3pmError) -> None:
            on_image()
            on_done(outcome)

        scheduler.submit(request, done)

    try:
        samples = collect(requests, submit, scheduler.cancel)
    finally:
        if scheduler.close():
            engine.close()
    return Enlarged(low, lanczos(low, size), np.stack([sample.image for sample in samples]), truth)


def lanczos(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Pictures [N, s, s, 3] enlarged to [N, size, size, 3] by Pillow's Lanczos filter."""
    return np.stack(
        [np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.LANCZOS)) for image in images]
    )


def compare(pictures: str, enlarged: Enlarged, judge: Judge | None) -> Comparison:
    """Measures both methods.

    Args:
        pictures: What they are, for the report.
        enlarged: See `enlarge`.
        judge: Compares faces; `None` for pictures without them.

    Raises:
        MissingExtraError: The package of EfficientNet-Lite0 is not installed.
    """
    truth, network = enlarged.truth, EfficientNetLite0()
    known = None if judge is None else judge.embed(truth)
    qualities = []
    for method, images in (("lanczos", enlarged.lanczos), ("network", enlarged.network)):
        identity = no_face = None
        if judge is not None and known is not None:
            vectors = judge.embed(images)
            identity = distribution(np.einsum("nd,nd->n", vectors, known)).mean
            no_face = float(np.mean(~np.isfinite(vectors[:, 0])))
        qualities.append(
            Quality(
                method=method,
                psnr=float(np.mean(psnr(images, truth))),
                ssim=float(np.mean(ssim(images, truth))),
                perceptual=float(np.mean(network.perceptual_distances(images, truth))),
                identity=identity,
                no_face=no_face,
            )
        )
    sizes = (enlarged.low.shape[1], truth.shape[1])
    return Comparison(pictures=pictures, count=len(truth), sizes=sizes, qualities=tuple(qualities))


def psnr(images: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Peak signal-to-noise ratio of pictures [N, S, S, 3] in dB, float64 [N]; infinite for equal pictures."""
    squared = ((images.astype(np.float64) - truth) ** 2).mean(axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        ratio: NDArray[np.float64] = 10.0 * np.log10(255.0**2 / squared)
    return ratio


def ssim(images: NDArray[np.uint8], truth: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Structural similarity of pictures [N, S, S, 3], mean over places and channels, float64 [N].

    Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004, eq. 13, with its
    Gaussian window of 11 pixels; windows that do not lie inside the picture are left out.
    """
    x, y = images.astype(np.float64), truth.astype(np.float64)
    mean_x, mean_y = _windowed(x), _windowed(y)
    variance_x, variance_y = _windowed(x * x) - mean_x**2, _windowed(y * y) - mean_y**2
    covariance = _windowed(x * y) - mean_x * mean_y
    similarity = (2 * mean_x * mean_y + SSIM_C1) * (2 * covariance + SSIM_C2)
    similarity /= (mean_x**2 + mean_y**2 + SSIM_C1) * (variance_x + variance_y + SSIM_C2)
    means: NDArray[np.float64] = similarity.mean(axis=(1, 2, 3))
    return means


def _windowed(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian means over all windows inside the pictures [N, H, W, 3]."""
    weights = np.exp(-0.5 * (np.arange(-SSIM_RADIUS, SSIM_RADIUS + 1) / SSIM_SIGMA) ** 2)
    weights /= weights.sum()
    for axis in (1, 2):
        x = np.lib.stride_tricks.sliding_window_view(x, len(weights), axis=axis) @ weights
    return x


def photograph_crops(pictures: Sequence[NDArray[np.uint8]], size: int) -> NDArray[np.uint8]:
    """Up to `CROPS_PER_PHOTOGRAPH` squares of each picture [H, W, 3], spread over it: uint8 [N, size, size, 3].

    Raises:
        InvalidInputError: No picture is large enough.
    """
    crops = []
    for picture in pictures:
        rows, columns = (side // size for side in picture.shape[:2])
        tiles = [(row, column) for row in range(rows) for column in range(columns)]
        count = min(CROPS_PER_PHOTOGRAPH, len(tiles))
        chosen = (2 * np.arange(count) + 1) * len(tiles) // (2 * max(count, 1))
        for row, column in (tiles[index] for index in chosen):
            crops.append(picture[row * size : (row + 1) * size, column * size : (column + 1) * size])
    if not crops:
        raise InvalidInputError(f"none of the {len(pictures)} photographs has {size}x{size} pixels")
    return np.stack(crops)


def held_out_photographs() -> list[NDArray[np.uint8]]:
    """Those of `HELD_OUT_PHOTOGRAPHS` whose package is installed, uint8 [H, W, 3]."""
    pictures = []
    for package, names in HELD_OUT_PHOTOGRAPHS.items():
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            pictures += [decode_photo((Path(folder) / name).read_bytes()) for name in names]
    return pictures
