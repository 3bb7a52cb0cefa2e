"""Sweeps of attributes: `yaw=-30:30`, `emotion=sad<->happy`, `emotion=all`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.attributes import EMOTIONS, describe_fields, emotion_name, encode, fields_of
from id3pm.errors import InvalidInputError

BETWEEN = "<->"
_FFHQ_SWEEPS = ("yaw=-30:30", "emotion=sad<->happy", "emotion=all")
DEFAULT_SWEEPS: Mapping[int | str, tuple[str, ...]] = {
    1: _FFHQ_SWEEPS,
    2: _FFHQ_SWEEPS,
    3: _FFHQ_SWEEPS,
    "landmarks": ("yaw=-30:30", "pitch=-20:20", "mouth_open=0:1", "smile=0:1", "eyes_open=0:1", "brows=0:1"),
}
"""Default sweeps by attribute set: those of Fig. 8 as far as the set has them."""


@dataclasses.dataclass(frozen=True)
class Sweep:
    """One control, changed step by step.

    Attributes:
        name: Name of the attribute, or of both emotions.
        unit: Unit of `requested`.
        values: The attributes of each step, by name.
        labels: Label of each step.
        requested: The number behind each step; empty where there is none, as for a list of emotions.
        judge: The measure that should follow it (`id3pm.face.measures`), or empty.
    """

    name: str
    unit: str
    values: tuple[Mapping[str, Any], ...]
    labels: tuple[str, ...]
    requested: tuple[float, ...]
    judge: str


def parse_sweep(text: str, attribute_set: int | str, steps: int, fixed: Mapping[str, Any] | None = None) -> Sweep:
    """The sweep of a command-line text.

    Args:
        text: `NAME=LOW:HIGH`, `emotion=sad<->happy` or `emotion=all`.
        attribute_set: The bundle's.
        steps: How many steps, both ends included.
        fixed: Attributes that all steps share.

    Raises:
        InvalidInputError: It is none of these, or a value breaks a rule of the set.
    """
    name, equals, what = (part.strip() for part in text.partition("="))
    shares = np.linspace(0.0, 1.0, steps)
    if not (equals and what):
        raise InvalidInputError(f"sweep {text!r}: give NAME=LOW:HIGH, emotion=sad{BETWEEN}happy or emotion=all")
    if name == "emotion" and what == "all":
        values = tuple({"emotion": emotion} for emotion in EMOTIONS)
        sweep = Sweep("emotions", "", values, EMOTIONS, (), "")
    elif name == "emotion" and BETWEEN in what:
        first, second = (emotion_name(word) for word in what.split(BETWEEN, 1))
        mixes = tuple({"emotion": {first: 1.0 - share, second: share}} for share in shares.tolist())
        labels = tuple(f"{share:.0%}" for share in shares)
        judge = "smile" if "happiness" in (first, second) else ""
        sweep = Sweep(f"{first} {BETWEEN} {second}", "", mixes, labels, tuple(shares.tolist()), judge)
    else:
        sweep = _range(name, what, attribute_set, shares)
    complete = tuple({**(fixed or {}), **values} for values in sweep.values)
    if missing := _missing(complete[0], attribute_set):
        raise InvalidInputError(
            f"attribute set {attribute_set} needs {', '.join(missing)}, which a sweep of {name} does not give: give it "
            "to all images, such as --fixed age=30,gender=female,brown_hair=1"
        )
    for step in complete:
        encode(step, attribute_set)
    return dataclasses.replace(sweep, values=complete)


def _missing(values: Mapping[str, Any], attribute_set: int | str) -> list[str]:
    """The groups without a neutral value of which no field is given."""
    groups: dict[str, bool] = {}
    for field in describe_fields(attribute_set):
        if field["needed"]:
            groups[field["group"]] = groups.get(field["group"], False) or field["name"] in values
    return [group for group, given in groups.items() if not given]


def _range(name: str, what: str, attribute_set: int | str, shares: NDArray[np.float64]) -> Sweep:
    try:
        low, high = (float(end) for end in what.split(":"))
    except ValueError:
        raise InvalidInputError(f"sweep {name}={what}: give two numbers, such as {name}=-20:20") from None
    units = {field.name: field.unit for field in fields_of(attribute_set)}
    requested = tuple((low + (high - low) * shares).tolist())
    values = tuple({name: value} for value in requested)
    labels = tuple(f"{value:.0f}" if units.get(name) else f"{value:.2f}" for value in requested)
    return Sweep(name, units.get(name, ""), values, labels, requested, name)
