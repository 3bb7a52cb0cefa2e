"""The older methods, opened by name: what each one needs, and notes on how it differs from what was published."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.evaluation.baselines import gaussian, nbnet, vec2face
from id3pm.evaluation.baselines.black_box import BlackBox
from id3pm.evaluation.baselines.gan_search import GanSearch
from id3pm.evaluation.baselines.gaussian import GaussianSampling
from id3pm.evaluation.baselines.generators import EmbeddedGenerator, OwnGenerator
from id3pm.evaluation.baselines.trained import TrainedNetwork
from id3pm.evaluation.cache import Cache
from id3pm.evaluation.files import SHORT
from id3pm.evaluation.verification.fr_models import FaceEngineModel
from id3pm.formats import datasets

BANK_SEED = 0  # of the embedded data set: its training people are the bank
BANK_CHUNK = 100  # images of the bank between two saves
DEVIATIONS = {"nbnet": nbnet.DEVIATIONS, "vec2face": vec2face.DEVIATIONS}


def open_gaussian(notes: list[str], *, authors_code: bool) -> GaussianSampling:
    """Gaussian sampling.

    Args:
        notes: Gets how it differs from the authors' method.
        authors_code: See `GaussianSampling`.
    """
    notes += [f"Gaussian sampling: {deviation}" for deviation in gaussian.DEVIATIONS]
    return GaussianSampling(authors_code=authors_code)


def open_gan_search(
    training: FaceEngineModel,
    cache: Cache,
    bank: int,
    own: Path | None,
    *,
    authors_code: bool,
    threads: int | None,
    on_images: Callable[[int], object] = lambda count: None,
) -> GanSearch:
    """GAN search with its bank, which is kept in the cache.

    Args:
        training: The black box.
        cache: Keeps the ID vectors of the bank.
        bank: Images of the bank.
        own: File of a StyleGAN2; `None` for the GAN of the embedded data set.
        authors_code: See `GanSearch`.
        threads: CPU threads of the generator.
        on_images: Called with the number of images of the bank whenever some are done.
    """
    generator = EmbeddedGenerator() if own is None else OwnGenerator(own, threads)
    # Every 20th face of the embedded data set is held out from training: none of these is in the bank.
    indices = [index for index in range(2 * bank) if own or index % datasets.TEST_EVERY][:bank]
    z = generator.latents(indices, BANK_SEED)
    form = "" if own else " normalised"
    key = {"seed": BANK_SEED, "generator": generator.weights_sha256 + form, "black box": training.key}
    parts = []
    for start in range(0, len(z), BANK_CHUNK):
        some = z[start : start + BANK_CHUNK]
        make = _bank(training, generator, some)
        parts.append(cache.array({**key, "bank": indices[start : start + BANK_CHUNK]}, make))
        on_images(len(some))
    made_by = generator.weights_sha256[:SHORT] + form
    return GanSearch(generator, z, np.concatenate(parts), made_by, authors_code=authors_code)


def open_network(method: str, weights: Path, id_vector_model: str, notes: list[str]) -> TrainedNetwork:
    """NbNet or Vec2Face.

    Args:
        method: `nbnet` or `vec2face`.
        weights: Folder with `METHOD.safetensors`.
        id_vector_model: The FR model whose vectors are inverted.
        notes: Gets how it differs from what was published, and how it was trained.

    Raises:
        InvalidInputError: The weights are missing, or of another method or FR model.
        CheckpointError: They are damaged.
    """
    network = TrainedNetwork(method, weights / f"{method}.safetensors", id_vector_model)
    notes += [f"{network.name}: {deviation}" for deviation in DEVIATIONS[method]]
    if method == "vec2face":
        notes.append(vec2face.PAPER_RANKS)
    notes.append(f"{network.name}: {_training(network.facts)}")
    return network


def _training(facts: Mapping[str, Any]) -> str:
    """How a network was trained, in words."""
    data = facts["data"]
    pictures = f" with {data['pictures of each']} pictures each" if "pictures of each" in data else ""
    before = f", from {facts['start']} of an earlier run" if facts.get("start") else ""
    return (
        f"trained {facts['steps']} steps of {facts['batch size']} on {data['people']} people{pictures} of the data set "
        f"{data['name']}{before}"
    )


def _bank(
    training: FaceEngineModel, generator: EmbeddedGenerator | OwnGenerator, z: NDArray[np.float32]
) -> Callable[[], NDArray[np.float32]]:
    return lambda: BlackBox(training.embed).vectors(list(generator.images(z)), aligned=False)
