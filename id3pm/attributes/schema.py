"""Attribute sets: the FFHQ attributes of the paper's supplement, Table 6, and the set `landmarks`.

| group       | fields | set 1 | set 2 | set 3 | landmarks |
|-------------|--------|-------|-------|-------|-----------|
| age         | 1      |       |       | x     |           |
| emotion     | 8      | x     | x     | x     |           |
| facial hair | 3      |       |       | x     |           |
| hair        | 8      |       |       | x     |           |
| head pose   | 3      | x     | x     | x     | x         |
| gender      | 1      |       |       | x     |           |
| glasses     | 1      |       | x     | x     |           |
| makeup      | 2      |       | x     | x     |           |
| occlusions  | 3      |       | x     | x     |           |
| expression  | 4      |       |       |       | x         |
| sum         | 30     | 11    | 17    | 30    | 7         |

The paper names the attributes, not their scaling. Ours: every field is divided by a constant that brings it near
[0, 1] (head pose: [-1, 1]). 0 is a valid value everywhere, so "no attributes" is the vector of -1 (supplement, footnote
1). The paper recommends set 1, which says least about the identity.

The set `landmarks` is not the paper's: it holds what `id3pm.face.measures` computes from the landmarks of a picture,
so a training set needs no metadata and the effect of each field can be measured. Its values are scaled from their
range to [0, 4]. Their spread is then about 1, which suits the initialisation of a layer. Each of its fields may be left
unspecified (-1) by itself, because its networks are trained with that.

Signs of the head pose, in the picture: positive roll turns the face clockwise, positive yaw turns it to the picture's
right (the paper describes an FFHQ face of yaw -21.9 as turned to the left), positive pitch turns it up.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import InvalidInputError

NULL_VALUE = -1.0
"""Value of every element of the vector that means "no attributes"."""

AttributeSet = int | Literal["landmarks"]
"""1, 2 and 3 of Table 6, or the name of a set of this package."""


@dataclasses.dataclass(frozen=True)
class Field:
    """One number of an attribute vector.

    Attributes:
        name: Its key in dicts of attributes.
        group: The row of Table 6 it belongs to.
        ffhq: Its path of keys in FFHQ's `faceAttributes`; empty if it is not there.
        low: Smallest allowed value, in `unit`.
        high: Largest allowed value.
        scale: The vector holds (value - offset) / scale.
        offset: See `scale`.
        unit: `degrees`, `years`, or empty for a share of 1.
        mirrored: The value changes its sign where the picture is flipped left to right.
        default: Value where it is not given; `None` leaves it unspecified in a set of `FREE_SETS`, else it is required.
    """

    name: str
    group: str
    ffhq: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 1.0
    scale: float = 1.0
    offset: float = 0.0
    unit: str = ""
    mirrored: bool = False
    default: float | None = 0.0


EMOTIONS = ("anger", "contempt", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
EMOTION_WORDS: Mapping[str, str] = types.MappingProxyType(
    {
        "angry": "anger",
        "contemptuous": "contempt",
        "disgusted": "disgust",
        "afraid": "fear",
        "scared": "fear",
        "happy": "happiness",
        "sad": "sadness",
        "surprised": "surprise",
    }
)
HAIR_COLORS = ("brown", "blond", "black", "red", "gray", "other")
GENDERS = ("female", "male")


def _ffhq_pose(name: str) -> Field:
    path = ("headPose", name)
    return Field(name, "head pose", path, -90.0, 90.0, 90.0, unit="degrees", mirrored=name != "pitch")


def _measured_pose(name: str, limit: float) -> Field:
    """A pose within +- `limit` degrees, as 0 .. 4."""
    return Field(name, "head pose", (), -limit, limit, limit / 2, -limit, "degrees", name != "pitch", default=None)


FIELDS = (
    Field("age", "age", ("age",), high=120.0, scale=100.0, unit="years", default=None),
    *(Field(name, "emotion", ("emotion", name), default=float(name == "neutral")) for name in EMOTIONS),
    *(Field(name, "facial hair", ("facialHair", name)) for name in ("moustache", "beard", "sideburns")),
    Field("bald", "hair", ("hair", "bald")),
    Field("hair_invisible", "hair", ("hair", "invisible")),
    *(Field(f"{name}_hair", "hair", ("hair", "hairColor", name)) for name in HAIR_COLORS),
    *(_ffhq_pose(name) for name in ("roll", "yaw", "pitch")),
    Field("gender", "gender", ("gender",), default=None),
    Field("glasses", "glasses", ("glasses",)),
    Field("eye_makeup", "makeup", ("makeup", "eyeMakeup")),
    Field("lip_makeup", "makeup", ("makeup", "lipMakeup")),
    Field("forehead_occluded", "occlusions", ("occlusion", "foreheadOccluded")),
    Field("eye_occluded", "occlusions", ("occlusion", "eyeOccluded")),
    Field("mouth_occluded", "occlusions", ("occlusion", "mouthOccluded")),
)
"""All 30 fields in the order of Table 6, which is their order in every vector."""

LANDMARK_FIELDS = (
    _measured_pose("roll", 25.0),
    _measured_pose("yaw", 35.0),
    _measured_pose("pitch", 25.0),
    *(Field(name, "expression", scale=0.25, default=None) for name in ("mouth_open", "smile", "eyes_open", "brows")),
)
"""Set `landmarks`; the expressions run from the least (0) to the most (1) in the demo set."""

_SET_1 = ("emotion", "head pose")
_SET_2 = (*_SET_1, "glasses", "makeup", "occlusions")
ATTRIBUTE_SETS: Mapping[int | str, tuple[Field, ...]] = types.MappingProxyType(
    {
        1: tuple(field for field in FIELDS if field.group in _SET_1),
        2: tuple(field for field in FIELDS if field.group in _SET_2),
        3: FIELDS,
        "landmarks": LANDMARK_FIELDS,
    }
)
"""Number or name of a set -> the fields of its vector, in order."""
FREE_SETS = ("landmarks",)
"""Sets whose fields may be left unspecified one by one."""
NEEDED_GROUPS = ("age", "hair", "gender")
"""Groups without a neutral value: outside `FREE_SETS`, where any attribute is given, at least one of each must be."""


def fields_of(attribute_set: int | str) -> tuple[Field, ...]:
    """The fields of a set, in order.

    Raises:
        InvalidInputError: There is no such set.
    """
    if attribute_set not in ATTRIBUTE_SETS:
        names = ", ".join(map(str, ATTRIBUTE_SETS))
        raise InvalidInputError(f"attribute_set={attribute_set!r}: choose one of {names}")
    return ATTRIBUTE_SETS[attribute_set]


def parse_set(text: str) -> AttributeSet:
    """The set that a command line names: `1`, `2`, `3` or `landmarks`.

    Raises:
        InvalidInputError: There is no such set.
    """
    name: Any = int(text) if text.isdecimal() else text
    fields_of(name)
    return name  # type: ignore[no-any-return]


def null_vector(attribute_set: int | str) -> NDArray[np.float32]:
    """The vector that means "no attributes": float32 [A], all -1."""
    return np.full(len(fields_of(attribute_set)), NULL_VALUE, dtype=np.float32)


def describe_fields(attribute_set: int | str | None) -> list[dict[str, Any]]:
    """The attributes of a set for clients, one JSON object per field: name, group, low, high, unit, default, free,
    needed.

    Where any field is given, one that is not is left unspecified if it is `free`; else it takes its `default`. Of the
    `needed` fields of a group at least one must be given then.
    """
    if attribute_set is None:
        return []
    keys = ("name", "group", "low", "high", "unit", "default")
    free = attribute_set in FREE_SETS
    return [
        {
            **{key: getattr(field, key) for key in keys},
            "free": free,
            "needed": not free and field.group in NEEDED_GROUPS,
        }
        for field in fields_of(attribute_set)
    ]
