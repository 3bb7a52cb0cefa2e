"""Replay: makes the image of a receipt again and compares it. No I/O to servers, so both clients share it.

A receipt has everything that determines an image, but only the hash of the ID vector, because the vector is biometric
data. So a replay takes the vector, or its photograph, and checks it first. Before the work, one step of each stage
gives the hashes of the server.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from id3pm_client import _contract as contract
from id3pm_client._answers import json_object
from id3pm_client._arguments import as_vectors, option_tensors
from id3pm_client._errors import InvalidRequestError, ReplayError
from id3pm_client._images import GeneratedImage
from id3pm_client._request import Call
from id3pm_client._seeds import as_seeds
from id3pm_client._types import JsonObject, Tensors

ReceiptSource: TypeAlias = JsonObject | str | os.PathLike[str] | GeneratedImage
"""A receipt: as a dict, as JSON text, as the path of a PNG that carries it or of its JSON, or a generated image."""

SCHEMA = 1
_HASH = "id_vector_sha256"
_STAGE_OF = {"base": "", "sr": "sr_"}  # stage in the receipt: prefix of its options on the wire
_PROBED = ("stages.base.options.steps", "stages.sr.options.steps")
_SOURCES = ".sources."  # where weights and engines came from; their hashes say whether they are the same
_SHOWN = 24


class Replay:
    """The image of one receipt.

    Attributes:
        receipt: The receipt.
        seed: Its seed.
        options: Its sampling options, for `generate`.
    """

    def __init__(self, source: ReceiptSource) -> None:
        self.receipt, self._image = _read(source)
        stages = self.receipt.get("stages")
        if self.receipt.get("schema") != SCHEMA or not isinstance(stages, Mapping):
            raise InvalidRequestError(f"this is no receipt of schema {SCHEMA}: pass it as the server gave it")
        if missing := [stage for stage in _STAGE_OF if stage not in stages]:
            raise ReplayError(f"the receipt lacks stages.{missing[0]}: only images of both stages can be made again")
        self.options: dict[str, Any] = {}
        for stage, prefix in _STAGE_OF.items():
            options = _object(_object(stages[stage], f"stages.{stage}").get("options"), f"stages.{stage}.options")
            for name, value in options.items():
                if prefix + name in contract.OPTIONS:
                    self.options[prefix + name] = value
        (self.seed,), _ = as_seeds([self.receipt.get("seed")])

    def check_vector(self, embedding: object) -> npt.NDArray[np.float32]:
        """The ID vector, if it is that of the receipt.

        Raises:
            InvalidRequestError: Not one vector.
            ReplayError: It is another one.
        """
        vector = as_vectors("embedding", embedding)
        if vector.ndim != 1:
            raise InvalidRequestError(
                f"embedding has shape {vector.shape}: a receipt is of one image; pass one vector [D]"
            )
        found = hashlib.sha256(vector.astype("<f4").tobytes()).hexdigest()
        _compare({_HASH: self.receipt.get(_HASH)}, {_HASH: found}, "this is not the ID vector of the receipt")
        return vector

    def probe(self, vector: npt.NDArray[np.float32]) -> list[Call]:
        """One step of each stage, whose receipt has the same hashes as the image's."""
        tensors, attributes = option_tensors({**self.options, "steps": 1, "sr_steps": 1})
        seed = np.array([[self.seed]], dtype=np.int64)
        inputs: Tensors = {"embedding": vector[None], **tensors, "seed": seed, **attributes}
        return [Call(contract.ID3PM, inputs, ("image", "receipt"))]

    def check_probe(self, answer: Tensors) -> None:
        """Compares the receipt of the probe with the image's, all but the steps.

        Raises:
            ReplayError: The server would make another image.
        """
        found = json_object(answer, "receipt")
        expected, there = _flat(self.receipt), _flat(found)
        for name in _PROBED:
            expected.pop(name, None), there.pop(name, None)
        _compare(expected, there, "the server cannot make this image again")

    def check(self, made: GeneratedImage) -> GeneratedImage:
        """The image that was made, if it is that of the receipt.

        Raises:
            ReplayError: It is another one.
        """
        _compare(_flat(self.receipt), _flat(made.receipt), "the server made another image")
        if self._image is None:
            return made
        pictures = {picture.size: picture for picture in (made.image, made.image_64) if picture is not None}
        again = pictures.get(self._image.size, made.image)  # the 64 px picture carries the receipt, too
        if self._image.tobytes() != again.tobytes():
            raise ReplayError(
                "the server made another image: the receipts are the same, the pixels differ",
                differences={"pixels": (_sha256(self._image), _sha256(again))},
            )
        return made


def _read(source: ReceiptSource) -> tuple[JsonObject, Image.Image | None]:
    """A receipt, and the picture where it came with one."""
    if isinstance(source, GeneratedImage):
        return source.receipt, source.image
    if isinstance(source, Mapping):
        return source, None
    if isinstance(source, str) and source.lstrip().startswith("{"):
        return _parse(source, "the receipt"), None
    if not isinstance(source, (str, os.PathLike)):
        raise InvalidRequestError(
            f"the receipt is a {type(source).__name__}: pass a dict, JSON text, the path of a PNG or a GeneratedImage"
        )
    data = Path(source).read_bytes()
    if data.lstrip().startswith(b"{"):
        return _parse(data, os.fspath(source)), None
    try:
        with Image.open(source) as picture:
            text = picture.info.get(contract.PNG_RECEIPT_KEY)
            image = picture.convert("RGB")
    except UnidentifiedImageError:
        raise InvalidRequestError(f"{os.fspath(source)}: neither a picture nor a receipt as JSON") from None
    if not isinstance(text, str):
        raise InvalidRequestError(
            f"{os.fspath(source)}: carries no receipt; pictures written by GeneratedImage.save() do, unless edited"
        )
    return _parse(text, os.fspath(source)), image


def _parse(text: str | bytes, name: str) -> JsonObject:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InvalidRequestError(f"{name}: not JSON: {error}") from None
    return _object(value, name)


def _object(value: object, name: str) -> JsonObject:
    if not isinstance(value, Mapping):
        raise InvalidRequestError(f"{name}: must be a JSON object, not {type(value).__name__}")
    return value


def _flat(value: JsonObject, prefix: str = "") -> dict[str, object]:
    """Nested objects as one, with dotted names."""
    flat: dict[str, object] = {}
    for name, item in value.items():
        flat.update(_flat(item, f"{prefix}{name}.") if isinstance(item, Mapping) else {f"{prefix}{name}": item})
    return flat


def _compare(expected: Mapping[str, object], found: Mapping[str, object], what: str) -> None:
    names = [name for name in [*expected, *(name for name in found if name not in expected)] if _SOURCES not in name]
    differences = {
        name: (expected.get(name), found.get(name)) for name in names if expected.get(name) != found.get(name)
    }
    if differences:
        told = "; ".join(
            f"{name} is {_short(a)} in the receipt, here {_short(b)}" for name, (a, b) in differences.items()
        )
        raise ReplayError(f"{what}: {told}", differences=differences)


def _short(value: object) -> str:
    text = "missing" if value is None else str(value)
    return text if len(text) <= _SHOWN else f"{text[:12]}..."


def _sha256(image: Image.Image) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()
