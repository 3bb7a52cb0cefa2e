"""People to choose from: samples, and uploaded photographs."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from id3pm.formats.photo_decoding import decode_photo
from id3pm.samples import PEOPLE
from id3pm_client import AsyncClient

Vector = npt.NDArray[np.float32]
_CROP = 192  # px
_AROUND = 0.75  # half the crop's side in sides of the face: it frames the head as the generated pictures do


@dataclasses.dataclass(frozen=True, eq=False)
class Person:
    """A face with its ID vector.

    Attributes:
        name: Name on the page.
        vector: ID vector, float32 `[D]`.
        face: The face as the detector found it, RGB.
        faces: How many faces the picture shows.
        score: The detector's confidence, 0 to 1.
        turned: Degrees counter-clockwise by which the service turned the picture so that the face is upright.
        photograph: A visitor's, not a sample person.
    """

    name: str
    vector: Vector
    face: Image.Image
    faces: int
    score: float
    turned: int = 0
    photograph: bool = False


@dataclasses.dataclass(frozen=True)
class SimilarityScale:
    """Scale of similarities under this face-recognition model, measured on the sample people.

    Attributes:
        strangers: Mean cosine between the ID vectors of different people.
        same: Mean cosine between those of a picture and of its mirror image.
    """

    strangers: float
    same: float

    def share(self, similarity: float) -> float:
        """Where a similarity lies on the way from a stranger (0) to the same picture (1)."""
        return (similarity - self.strangers) / (self.same - self.strangers)

    def words(self, similarity: float) -> str:
        """Describes a similarity on the scale from two different people to two pictures of one."""
        share = 100 * self.share(similarity)
        if share <= 0:
            return "no more than between two different people"
        return f"{share:.0f} % of the way from another person to the same picture"


def sample_files(folder: Path = PEOPLE) -> list[Path]:
    """The pictures of the sample people, in order of their names."""
    return sorted(folder.glob("*.png"))


async def find_person(client: AsyncClient, name: str, data: bytes, *, photograph: bool = False) -> Person:
    """The person in a photograph, the largest face where there are several.

    Args:
        client: Finds the face.
        name: What to call them.
        data: Content of a JPEG, PNG or WebP file.
        photograph: It is a visitor's.

    Raises:
        ClientError: The service finds no usable face, or does not answer.
        ImageError: Not a picture.
    """
    found = await client.embed(data)
    pixels = await asyncio.to_thread(decode_photo, data)
    face = crop(Image.fromarray(pixels), found.box)
    upright = face.rotate(found.turned, Image.Resampling.BICUBIC)
    return Person(name, found.vector, upright, found.faces, found.score, found.turned, photograph)


async def measure_scale(client: AsyncClient, files: list[Path]) -> SimilarityScale | None:
    """The scale of the served face-recognition model, or `None` with fewer than two people.

    Raises:
        ClientError: The service does not answer.
        OSError: A picture cannot be read.
    """
    if len(files) < 2:
        return None
    pictures = [Image.open(file).convert("RGB") for file in files]
    both = [*pictures, *(ImageOps.mirror(picture) for picture in pictures)]
    vectors = [_unit(found.vector) for found in await asyncio.gather(*(client.embed(each) for each in both))]
    as_they_are, mirrored = np.stack(vectors[: len(files)]), np.stack(vectors[len(files) :])
    cosines = as_they_are @ as_they_are.T
    others = cosines[~np.eye(len(files), dtype=bool)]
    return SimilarityScale(float(others.mean()), float((as_they_are * mirrored).sum(axis=1).mean()))


def similarity(a: Vector, b: Vector) -> float:
    """Cosine of the angle between two ID vectors."""
    return float(_unit(a) @ _unit(b))


def crop(photo: Image.Image, box: npt.NDArray[Any]) -> Image.Image:
    """The square around a face, as far as the photograph reaches.

    Args:
        photo: RGB.
        box: x, y, width, height of the face in pixels.
    """
    x, y, width, height = (float(value) for value in box)
    half = min(_AROUND * max(width, height), photo.width / 2, photo.height / 2)
    centre_x = min(max(x + width / 2, half), photo.width - half)
    centre_y = min(max(y + height / 2, half), photo.height - half)
    corners = (centre_x - half, centre_y - half, centre_x + half, centre_y + half)
    return photo.resize((_CROP, _CROP), Image.Resampling.BICUBIC, box=corners)


def _unit(vector: Vector) -> Vector:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)
