"""Attribute vectors from the metadata files of FFHQ (https://github.com/DCGM/ffhq-features-dataset)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.attributes.schema import HAIR_COLORS, Field, fields_of
from id3pm.attributes.values import checked_number
from id3pm.errors import InvalidInputError

GLASSES = ("NoGlasses", "ReadingGlasses", "Sunglasses", "SwimmingGoggles")


def encode_ffhq(metadata: Any, attribute_set: int | str) -> NDArray[np.float32]:
    """An attribute vector from the metadata of one FFHQ image (https://github.com/DCGM/ffhq-features-dataset).

    Glasses of any kind are 1. Hair colours that are not listed have confidence 0, as has every one of hidden hair.

    Args:
        metadata: The content of one JSON file: a list of faces, of which the first (the largest) counts; or one face;
            or its `faceAttributes`.
        attribute_set: 1, 2 or 3; only its fields need to be present.

    Returns:
        float32 [A].

    Raises:
        InvalidInputError: No face, a field is missing, or its value is outside its range.
    """
    fields = fields_of(attribute_set)
    if not all(field.ffhq for field in fields):
        raise InvalidInputError(f"attribute set {attribute_set} is not in FFHQ's metadata: choose 1, 2 or 3")
    if isinstance(metadata, Sequence) and not isinstance(metadata, str):
        if not metadata:
            raise InvalidInputError("the FFHQ metadata lists no face: skip this image")
        metadata = metadata[0]
    if isinstance(metadata, Mapping) and "faceAttributes" in metadata:
        metadata = metadata["faceAttributes"]
    if not isinstance(metadata, Mapping):
        raise InvalidInputError(
            f"the FFHQ metadata is {type(metadata).__name__}: need the JSON list, one face of it, or its faceAttributes"
        )
    values = [checked_number(field, _look_up(metadata, field)) / field.scale for field in fields]
    return np.array(values, dtype=np.float32)


def _look_up(attributes: Mapping[str, Any], field: Field) -> Any:
    """The value of a field in `faceAttributes`."""
    value: Any = attributes
    for depth, key in enumerate(field.ffhq):
        if not isinstance(value, Mapping) or key not in value:
            raise InvalidInputError(f"the FFHQ metadata has no {'.'.join(field.ffhq[: depth + 1])}")
        value = value[key]
        if key == "hairColor":
            return _confidence(value, field.ffhq[-1])
    if field.name == "glasses":
        if value not in GLASSES:
            raise InvalidInputError(f"glasses={value!r}: must be one of {', '.join(GLASSES)}")
        return value != "NoGlasses"
    return value


def _confidence(colors: Any, color: str) -> Any:
    """Confidence of a colour in FFHQ's `hairColor`, a list of {color, confidence}."""
    if not isinstance(colors, Sequence) or not all(
        isinstance(entry, Mapping) and entry.get("color") in HAIR_COLORS and "confidence" in entry for entry in colors
    ):
        raise InvalidInputError(
            f"hair.hairColor={colors!r}: must be a list of {{color, confidence}} with color one of "
            f"{', '.join(HAIR_COLORS)}"
        )
    return next((entry["confidence"] for entry in colors if entry["color"] == color), 0.0)
