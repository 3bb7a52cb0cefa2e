"""Attribute vectors from names and values, and back."""

from __future__ import annotations

import collections
import difflib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.attributes.schema import (
    EMOTION_WORDS,
    EMOTIONS,
    FIELDS,
    FREE_SETS,
    GENDERS,
    NEEDED_GROUPS,
    NULL_VALUE,
    Field,
    fields_of,
    null_vector,
)
from id3pm.errors import InvalidInputError

ROUNDING = 5e-3
"""How far over 1 the emotions may sum: FFHQ's metadata give eight of them with three decimals each."""


def parse_values(text: str) -> dict[str, Any]:
    """Names and values from text: a JSON object, or pairs such as `yaw=-20, smile=0.8, emotion=happy`.

    Raises:
        InvalidInputError: It is neither, or names a field twice.
    """
    if text.lstrip().startswith("{"):
        try:
            return dict(json.loads(text, object_pairs_hook=_without_repeats))
        except InvalidInputError:  # a ValueError, too: a name is repeated, which JSON allows
            raise
        except ValueError as error:
            raise InvalidInputError(f"attributes {text[:64]!r}: not JSON: {error}") from None
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(name.strip() and equals and value.strip() for name, equals, value in pairs):
        raise InvalidInputError(f"attributes {text[:64]!r}: give JSON, or pairs such as yaw=-20,smile=0.8")
    return _without_repeats([(name.strip(), _number_or_word(value.strip())) for name, _, value in pairs])


def encode(values: Mapping[str, Any], attribute_set: int | str) -> NDArray[np.float32]:
    """An attribute vector from names and values.

    A field that is missing or `None` is unspecified (-1) in a set of `FREE_SETS`. In the paper's sets it is 0, and
    the rest of the emotions to 1 is neutral; age, hair and gender have no neutral value: with set 3, the
    first and last and at least one hair field must be given.

    Args:
        values: Field name (see `ATTRIBUTE_SETS`) -> value in the unit of the field: years, degrees, booleans, or
            numbers from 0 to 1. `gender` also takes `female` (0) and `male` (1). `emotion` stands for all eight
            emotions: a word such as `happy` (see `EMOTION_WORDS`), or shares of several: `{"sad": 0.3, "happy": 0.7}`.
        attribute_set: 1, 2, 3 or `landmarks`.

    Returns:
        float32 [A].

    Raises:
        InvalidInputError: A name is unknown, a value is outside its range, or one is missing.
    """
    fields = fields_of(attribute_set)
    names = [field.name for field in fields]
    values = {name: value for name, value in values.items() if value is not None}
    has_emotions = EMOTIONS[0] in names
    if has_emotions and "emotion" in values:
        values = _with_emotion(values)
    if unknown := sorted(set(values) - set(names)):
        raise InvalidInputError(_unknown(unknown, [*names, *(["emotion"] if has_emotions else [])], attribute_set))
    given = {field.name: checked_number(field, values[field.name]) for field in fields if field.name in values}
    if attribute_set not in FREE_SETS:
        given = _completed(given, names, attribute_set)
    vector = null_vector(attribute_set)
    for position, field in enumerate(fields):
        if field.name in given:
            vector[position] = (given[field.name] - field.offset) / field.scale
    return vector


def decode(vector: NDArray[np.floating[Any]], attribute_set: int | str) -> dict[str, float]:
    """The values of an attribute vector [A] by name, in the fields' units, without those that are unspecified.

    Raises:
        InvalidInputError: The vector has another length.
    """
    fields = fields_of(attribute_set)
    if np.shape(vector) != (len(fields),):
        raise InvalidInputError(
            f"attributes have shape {list(np.shape(vector))}: attribute set {attribute_set} has {len(fields)} numbers"
        )
    if np.all(vector == NULL_VALUE):
        return {}
    return {
        field.name: float(number) * field.scale + field.offset
        for field, number in zip(fields, vector, strict=True)
        if attribute_set not in FREE_SETS or number != NULL_VALUE
    }


def mirrored(vectors: NDArray[np.float32], attribute_set: int | str) -> NDArray[np.float32]:
    """The attribute vectors [..., A] of the pictures flipped left to right: roll and yaw change their signs."""
    flipped = vectors.copy()
    for position, field in enumerate(fields_of(attribute_set)):
        if field.mirrored:
            # value -> -value, where number = (value - offset) / scale
            flipped[..., position] = -vectors[..., position] - 2 * field.offset / field.scale
    if attribute_set in FREE_SETS:
        return np.where(vectors == NULL_VALUE, np.float32(NULL_VALUE), flipped)
    unspecified = np.all(vectors == NULL_VALUE, axis=-1, keepdims=True)
    return np.where(unspecified, np.float32(NULL_VALUE), flipped)


def _completed(given: dict[str, float], names: list[str], attribute_set: int | str) -> dict[str, float]:
    """The values of one of the paper's sets with its defaults."""
    groups = {field.name: field.group for field in FIELDS}
    for group in NEEDED_GROUPS:
        members = [name for name in names if groups[name] == group]
        if members and not any(name in given for name in members):
            raise InvalidInputError(
                f"attribute set {attribute_set} needs {' or '.join(members)}: {group} has no default"
            )
    emotion_sum = sum(given.get(name, 0.0) for name in EMOTIONS)
    if emotion_sum > 1.0 + ROUNDING:
        told = ", ".join(f"{name}={given[name]:g}" for name in EMOTIONS if given.get(name))
        raise InvalidInputError(
            f"the emotions sum to {emotion_sum:g} ({told}): at most 1 is allowed; lower some of them"
        )
    return {**dict.fromkeys(names, 0.0), "neutral": max(1.0 - emotion_sum, 0.0), **given}


def _with_emotion(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with `emotion` replaced by the emotions that it stands for."""
    rest = {name: value for name, value in values.items() if name != "emotion"}
    if both := sorted(set(rest) & set(EMOTIONS)):
        raise InvalidInputError(f"emotion and {', '.join(both)} are both given: give one or the other")
    shares = values["emotion"]
    if isinstance(shares, str):
        shares = {shares: 1.0}
    if not isinstance(shares, Mapping):
        raise InvalidInputError(f"emotion={shares!r}: give a word such as happy, or shares such as {{'happy': 0.7}}")
    for word, share in shares.items():
        name = emotion_name(str(word))
        if name in rest:
            raise InvalidInputError(f"emotion={dict(shares)!r} names {name} twice")
        rest[name] = share
    return rest


def emotion_name(word: str) -> str:
    """The emotion that a word means: `happy` -> `happiness`.

    Raises:
        InvalidInputError: The word is unknown.
    """
    name = EMOTION_WORDS.get(word.strip().lower(), word.strip().lower())
    if name not in EMOTIONS:
        raise InvalidInputError(f"emotion={word!r}: choose one of {', '.join((*EMOTION_WORDS, *EMOTIONS))}")
    return name


def _unknown(unknown: list[str], names: list[str], attribute_set: int | str) -> str:
    close = difflib.get_close_matches(unknown[0], names, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"attribute set {attribute_set} has no {', '.join(unknown)}: {hint}it has {', '.join(names)}"


def checked_number(field: Field, value: Any) -> float:
    """A value of a field as a number.

    Raises:
        InvalidInputError: It is not a number, or outside the field's range.
    """
    if field.name == "gender" and isinstance(value, str):
        if value not in GENDERS:
            raise InvalidInputError(f"gender={value!r}: must be {' or '.join(GENDERS)}, or a number from 0 to 1")
        return float(GENDERS.index(value))
    if (
        not isinstance(value, (int, float, np.integer, np.floating, np.bool_)) or not field.low <= value <= field.high
    ):  # NaN is in no range
        unit = f" {field.unit}" if field.unit else ""
        raise InvalidInputError(f"{field.name}={value!r}: must be a number from {field.low:g} to {field.high:g}{unit}")
    return float(value)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        counts = collections.Counter(name for name, _ in pairs)
        repeated = ", ".join(name for name, count in counts.items() if count > 1)
        raise InvalidInputError(f"attributes: a name is repeated: {repeated[:200]}")
    return values


def _number_or_word(text: str) -> float | str:
    if not text.isascii() or "_" in text:  # Python takes 3_0 and digits of other scripts for numbers
        return text
    try:
        return float(text)
    except ValueError:
        return text
