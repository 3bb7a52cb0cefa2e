"""Arrays with a description in one `.npz` file, without pickle.

    description    text, JSON: {"kind": ..., "schema_version": ..., ...}
    NAME           the arrays

The same description and arrays give the same bytes, and a file is written whole or not at all.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import InvalidInputError

DESCRIPTION = "description"
OWNER_ONLY = 0o600


def private(path: str, flags: int) -> int:
    """Opens a file that only its owner may read, as `open(..., opener=private)`: for biometric data."""
    descriptor = os.open(path, flags, OWNER_ONLY)
    if hasattr(os, "fchmod"):  # not on Windows
        os.fchmod(descriptor, OWNER_ONLY)  # the file may exist with other permissions
    return descriptor


def write_arrays(
    path: str | os.PathLike[str],
    description: Mapping[str, Any],
    arrays: Mapping[str, Any],
    opener: Callable[[str, int], int] | None = None,
) -> None:
    """Writes a file atomically; its folder is made if it is missing.

    Args:
        path: Of any name; usually ends in `.npz`.
        description: JSON.
        arrays: Name -> array; `description` is taken.
        opener: As of `open`; `private` for files that only their owner may read.
    """
    assert DESCRIPTION not in arrays
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(description, ensure_ascii=False, allow_nan=False)
    partial = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    with open(partial, "wb", opener=opener) as stream:
        np.savez(stream, **{DESCRIPTION: np.array(text), **arrays})
    os.replace(partial, file)


def read_arrays(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The description and all arrays of a file.

    Args:
        path: The file.
        kind: Required `description["kind"]`.

    Raises:
        InvalidInputError: It is damaged, or of another kind.
        OSError: It cannot be read.
    """
    file = Path(path)
    try:
        # numpy leaves a file open that it opened itself and could not read.
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
        description = json.loads(str(arrays.pop(DESCRIPTION)))
    except (zipfile.BadZipFile, EOFError, KeyError, ValueError, AttributeError, TypeError) as error:
        raise InvalidInputError(f"{file.name} is damaged, or no file of this package: {error}") from error
    if not isinstance(description, dict) or description.get("kind") != kind:
        found = description.get("kind") if isinstance(description, dict) else type(description).__name__
        raise InvalidInputError(f"{file.name} is of kind {found!r}: need {kind!r}")
    return description, arrays


def check_shapes(name: str, arrays: Mapping[str, NDArray[Any]], shapes: Mapping[str, tuple[int, ...]]) -> None:
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
