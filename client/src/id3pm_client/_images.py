"""Pictures: photographs, faces found in them, generated images."""

from __future__ import annotations

import dataclasses
import io
import json
import os
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin

from id3pm_client._contract import DETECTION_LENGTH, GENERATED_XMP, PNG_RECEIPT_KEY, PNG_XMP_KEY
from id3pm_client._errors import InvalidRequestError
from id3pm_client._pictures import picture_file
from id3pm_client._types import Array, JsonObject

Photo: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | npt.NDArray[np.uint8]
"""A photograph: path of a JPEG, PNG or WebP file, its bytes, a PIL image, or uint8 `[H, W, 3]` RGB."""


@dataclasses.dataclass(frozen=True, eq=False)
class GeneratedImage:
    """One generated face.

    Attributes:
        image: RGB at the size of the SR stage (256 px in the paper).
        image_64: The RGB image of the base stage (64 px in the paper), or `None` where it was not asked for.
        seed: The seed that it was made from.
        receipt: Everything that determines the image: seed, options, hashes of weights and engines.
        request_id: Id under which the server knew the request.
        seconds: Time from sending the request to its answer, retries included.
    """

    image: Image.Image
    image_64: Image.Image | None
    seed: int
    receipt: JsonObject
    request_id: str
    seconds: float

    def png(self) -> bytes:
        """The 256 px image as a PNG file, with the receipt as JSON in the text chunk `id3pm`.

        Its metadata mark it as generated (IPTC digital source type `trainedAlgorithmicMedia`).
        """
        return png_of(self.image, self.receipt)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the bytes of `png()`.

        Raises:
            InvalidRequestError: `path` does not end in `.png`.
            OSError: The file cannot be written.
        """
        if Path(path).suffix.lower() != ".png":
            raise InvalidRequestError(
                f"{os.fspath(path)!r}: must end in .png, which carries the receipt; use .image.save() for other formats"
            )
        Path(path).write_bytes(self.png())


def png_of(image: Image.Image, receipt: JsonObject | None = None) -> bytes:
    """A generated image, or a preview, as a PNG file with the metadata of generated pictures.

    Args:
        image: The image.
        receipt: Stored as JSON in the text chunk `id3pm`, if it is given.
    """
    text = PngImagePlugin.PngInfo()
    if receipt is not None:
        text.add_text(PNG_RECEIPT_KEY, json.dumps(receipt))
    text.add_itxt(PNG_XMP_KEY, GENERATED_XMP)
    file = io.BytesIO()
    image.save(file, format="PNG", pnginfo=text)
    return file.getvalue()


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Embedding:
    """The ID vector of a face in a photograph. Usable wherever an array is expected.

    Attributes:
        vector: float32 `[D]`.
        detection: float32 `[15]`: x, y, width, height of the face, five landmarks (x, y), score; in pixels of the
            photograph.
        faces: How many faces the photograph shows.
        id_vector_model: The FR model that made the vector. `generate` passes it on, and a server whose bundle takes the
            vectors of another model refuses.
        turned: Degrees counter-clockwise by which the server turned the photograph so that the face is upright, -179
            to 180; 0 where it was taken as it is stored.
    """

    vector: npt.NDArray[np.float32]
    detection: npt.NDArray[np.float32]
    faces: int
    id_vector_model: str
    turned: int = 0

    def __post_init__(self) -> None:
        assert self.detection.shape == (DETECTION_LENGTH,)
        self.vector.setflags(write=False)
        self.detection.setflags(write=False)

    def __repr__(self) -> str:
        """Without the vector, which is biometric data."""
        x, y, width, height = (round(float(number)) for number in self.box)
        return (
            f"Embedding({self.vector.size} numbers of {self.id_vector_model}, face of {width} x {height} px at "
            f"({x}, {y}), score {self.score:.2f}, faces={self.faces})"
        )

    def __array__(self, dtype: npt.DTypeLike = None, copy: bool | None = None) -> Array:
        """The vector, for `np.asarray(embedding)` and `np.stack(embeddings)`."""
        array = self.vector if dtype is None else self.vector.astype(dtype, copy=False)
        return array.copy() if copy else array

    @property
    def box(self) -> npt.NDArray[np.float32]:
        """float32 `[4]`: x, y of the upper left corner, width, height; in pixels."""
        return self.detection[:4]

    @property
    def landmarks(self) -> npt.NDArray[np.float32]:
        """float32 `[5, 2]`: (x, y) of right eye, left eye, nose tip, right and left corner of the mouth."""
        return self.detection[4:14].reshape(5, 2)

    @property
    def score(self) -> float:
        """The detector's confidence, 0 to 1."""
        return float(self.detection[14])


def photo_bytes(photo: Photo) -> bytes:
    """A photograph as the bytes of a JPEG, PNG or WebP file; files and bytes are passed on unchanged.

    Raises:
        InvalidRequestError: Of another type, empty, or an array that is not uint8 `[H, W, 3]`.
        OSError: The file cannot be read.
    """
    if isinstance(photo, (str, os.PathLike)):
        photo = Path(photo).read_bytes()
    if isinstance(photo, bytes):
        if not photo:
            raise InvalidRequestError("the photo is empty: pass the bytes of a JPEG, PNG or WebP file")
        return photo
    if isinstance(photo, np.ndarray):
        if photo.dtype != np.uint8 or photo.ndim != 3 or photo.shape[2] != 3 or 0 in photo.shape:
            raise InvalidRequestError(
                f"the photo is a {photo.dtype} array of shape {photo.shape}: pass uint8 [H, W, 3] RGB"
            )
        photo = Image.fromarray(np.ascontiguousarray(photo))
    if isinstance(photo, Image.Image):
        return picture_file(photo)
    raise InvalidRequestError(
        f"the photo is a {type(photo).__name__}: pass a path, bytes, a PIL image or uint8 [H, W, 3]"
    )
