"""Attribute vectors for conditioning: the FFHQ attributes of the paper's supplement, Table 6, in its sets 1, 2 and 3.

| group       | fields | set 1 | set 2 | set 3 |
|-------------|--------|-------|-------|-------|
| age         | 1      |       |       | x     |
| emotion     | 8      | x     | x     | x     |
| facial hair | 3      |       |       | x     |
| hair        | 8      |       |       | x     |
| head pose   | 3      | x     | x     | x     |
| gender      | 1      |       |       | x     |
| glasses     | 1      |       | x     | x     |
| makeup      | 2      |       | x     | x     |
| occlusions  | 3      |       | x     | x     |
| sum         | 30     | 11    | 17    | 30    |

The paper names the attributes, not their scaling. Ours: every field is divided by a constant that brings it near
[0, 1] (head pose: [-1, 1]). 0 is a valid value everywhere, so "no attributes" is the vector of -1 (supplement, footnote
1). The paper recommends set 1, which says least about the identity.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import InvalidInputError

NULL_VALUE = -1.0
"""Every number of the vector that means "no attributes"."""


@dataclasses.dataclass(frozen=True)
class Field:
    """One number of an attribute vector.

    Attributes:
        name: Its name in friendly dicts.
        group: The row of Table 6 it belongs to.
        ffhq: Where FFHQ's `faceAttributes` has it: keys from the outside in.
        low: Smallest allowed value, in the unit of FFHQ's metadata.
        high: Largest allowed value.
        scale: The vector holds value / scale.
    """

    name: str
    group: str
    ffhq: tuple[str, ...]
    low: float = 0.0
    high: float = 1.0
    scale: float = 1.0


EMOTIONS = ("anger", "contempt", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
HAIR_COLORS = ("brown", "blond", "black", "red", "gray", "other")
GLASSES = ("NoGlasses", "ReadingGlasses", "Sunglasses", "SwimmingGoggles")
GENDERS = ("female", "male")

FIELDS = (
    Field("age", "age", ("age",), high=120.0, scale=100.0),
    *(Field(name, "emotion", ("emotion", name)) for name in EMOTIONS),
    *(Field(name, "facial hair", ("facialHair", name)) for name in ("moustache", "beard", "sideburns")),
    Field("bald", "hair", ("hair", "bald")),
    Field("hair_invisible", "hair", ("hair", "invisible")),
    *(Field(f"{name}_hair", "hair", ("hair", "hairColor", name)) for name in HAIR_COLORS),
    *(Field(name, "head pose", ("headPose", name), -90.0, 90.0, 90.0) for name in ("roll", "yaw", "pitch")),
    Field("gender", "gender", ("gender",)),
    Field("glasses", "glasses", ("glasses",)),
    Field("eye_makeup", "makeup", ("makeup", "eyeMakeup")),
    Field("lip_makeup", "makeup", ("makeup", "lipMakeup")),
    Field("forehead_occluded", "occlusions", ("occlusion", "foreheadOccluded")),
    Field("eye_occluded", "occlusions", ("occlusion", "eyeOccluded")),
    Field("mouth_occluded", "occlusions", ("occlusion", "mouthOccluded")),
)
"""All 30 fields in the order of Table 6, which is their order in every vector."""

_SET_1 = ("emotion", "head pose")
_SET_2 = (*_SET_1, "glasses", "makeup", "occlusions")
ATTRIBUTE_SETS: Mapping[int, tuple[Field, ...]] = types.MappingProxyType(
    {
        1: tuple(field for field in FIELDS if field.group in _SET_1),
        2: tuple(field for field in FIELDS if field.group in _SET_2),
        3: FIELDS,
    }
)
"""Set number -> the fields of its vector, in order."""

_HAS_NO_DEFAULT = ("age", "hair", "gender")


def null_vector(attribute_set: int) -> NDArray[np.float32]:
    """The vector that means "no attributes": float32 [A], all -1."""
    return np.full(len(_fields(attribute_set)), NULL_VALUE, dtype=np.float32)


def encode(values: Mapping[str, float | str], attribute_set: int) -> NDArray[np.float32]:
    """An attribute vector from names and values.

    Fields that are not given are 0; the emotions' rest, what they lack to 1, is neutral. Age, hair and gender have no
    neutral value: with set 3, the first and last and at least one hair field must be given.

    Args:
        values: Field name (see `FIELDS`) -> value in the unit of FFHQ's metadata: years, degrees, booleans, or
            confidences from 0 to 1. `gender` also takes `female` (0) and `male` (1).
        attribute_set: 1, 2 or 3.

    Returns:
        float32 [A].

    Raises:
        InvalidInputError: A name is unknown, a value is outside its range, or one is missing.
    """
    fields = _fields(attribute_set)
    names = [field.name for field in fields]
    if unknown := sorted(set(values) - set(names)):
        raise InvalidInputError(f"attribute set {attribute_set} has no {', '.join(unknown)}; it has {', '.join(names)}")
    for group in _HAS_NO_DEFAULT:
        members = [field.name for field in fields if field.group == group]
        if members and not any(name in values for name in members):
            raise InvalidInputError(
                f"attribute set {attribute_set} needs {' or '.join(members)}: {group} has no default"
            )
    given = {field.name: _number(field, values[field.name]) for field in fields if field.name in values}
    feelings = sum(given.get(name, 0.0) for name in EMOTIONS)
    if feelings > 1.0 + 1e-6 and "neutral" not in given:
        raise InvalidInputError(f"the emotions sum to {feelings:g}: at most 1 is allowed; lower some of them")
    given.setdefault("neutral", max(1.0 - feelings, 0.0))
    return np.array([given.get(field.name, 0.0) / field.scale for field in fields], dtype=np.float32)


def encode_ffhq(metadata: Any, attribute_set: int) -> NDArray[np.float32]:
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
    fields = _fields(attribute_set)
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
    values = [_number(field, _look_up(metadata, field)) / field.scale for field in fields]
    return np.array(values, dtype=np.float32)


def _fields(attribute_set: int) -> tuple[Field, ...]:
    if attribute_set not in ATTRIBUTE_SETS:
        raise InvalidInputError(
            f"attribute_set={attribute_set!r}: choose one of {', '.join(str(number) for number in ATTRIBUTE_SETS)}"
        )
    return ATTRIBUTE_SETS[attribute_set]


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


def _number(field: Field, value: Any) -> float:
    if field.name == "gender" and isinstance(value, str):
        if value not in GENDERS:
            raise InvalidInputError(f"gender={value!r}: must be {' or '.join(GENDERS)}, or a number from 0 to 1")
        return float(GENDERS.index(value))
    if (
        not isinstance(value, (int, float, np.integer, np.floating, np.bool_)) or not field.low <= value <= field.high
    ):  # NaN lies in no range
        raise InvalidInputError(f"{field.name}={value!r}: must be a number from {field.low:g} to {field.high:g}")
    return float(value)
