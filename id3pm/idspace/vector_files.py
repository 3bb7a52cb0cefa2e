"""Checks that the files of this room share."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from id3pm.config import from_json
from id3pm.errors import InvalidInputError

T = TypeVar("T")


def described(cls: type[T], raw: dict[str, Any], name: str, version: int) -> T:
    """The description of a file as its class; unknown keys and other versions are errors.

    Raises:
        InvalidInputError: See above; the message names the file.
    """
    if raw.get("schema_version") != version:
        raise InvalidInputError(
            f"{name} has schema_version={raw.get('schema_version')!r}: this version reads {version}"
        )
    try:
        return from_json(cls, raw)
    except ValueError as error:
        raise InvalidInputError(f"{name}: {error}") from error  # ConfigError, or of a rule of the class


def check_shapes(name: str, arrays: dict[str, NDArray[Any]], shapes: dict[str, tuple[int, ...]]) -> None:
    """Checks that a file holds exactly these arrays, finite and of these shapes.

    Raises:
        InvalidInputError: It does not; the message names the file.
    """
    found = {key: array.shape for key, array in arrays.items()}
    if found != shapes:
        raise InvalidInputError(f"{name} holds arrays of shapes {found}: need {shapes}")
    for key, array in arrays.items():
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise InvalidInputError(f"{name}: {key} holds values that are not finite numbers")
