"""Real ID vectors: of the photograph in this repository and of faces that were generated for the demo data set."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from id3pm.formats import datasets as shards
from id3pm_client import Client, InvalidRequestError

ROOT = Path(__file__).resolve().parents[2]
PHOTO = ROOT / "demo" / "astronaut.jpg"
DATA = ROOT / "data" / "demo"


def identities(client: Client, count: int, data: Path = DATA) -> NDArray[np.float32]:
    """`count` different ID vectors [N, D] of faces.

    The first is of the photograph. The others come from the held-out half of the demo data set where it was made,
    else from faces that its generator makes now and the server embeds.

    Args:
        client: Of a server with the face stage.
        count: How many.
        data: Folder of the data set.
    """
    first = client.embed(PHOTO).vector
    if (data / shards.DESCRIPTION_FILE).exists():
        rest = list(shards.load(data, "test")["vectors"][: count - 1])
    else:
        rest = _generated(client, count - 1)
    if len(rest) < count - 1:
        raise ValueError(f"{count} ID vectors are wanted, {data} has {len(rest)} held-out ones")
    return np.stack([first, *rest]).astype(np.float32)


def _generated(client: Client, count: int) -> list[NDArray[np.float32]]:
    from id3pm.training.gan import FaceGenerator  # here: it brings PyTorch

    vectors: list[NDArray[np.float32]] = []
    generator, index = FaceGenerator(), 0
    while len(vectors) < count:
        with contextlib.suppress(InvalidRequestError):  # one face in twenty is none that the detector finds
            vectors.append(client.embed(Image.fromarray(generator.sample(0, [index])[0])).vector)
        index += 1
    return vectors
