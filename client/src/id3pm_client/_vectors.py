"""ID vectors as they come from callers, checked; and the files that `id3pm latent` writes."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from id3pm_client._errors import InvalidRequestError

Vectors = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
SMALLEST_NORM = 1e-6
SCHEMA_VERSION = 1


def read(path: str | os.PathLike[str], kind: str, more: set[str]) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Description and arrays of a file of `id3pm latent`; `more` are keys of its description beside the common ones.

    Raises:
        InvalidRequestError: It is no such file, or of another version.
        OSError: It cannot be read.
    """
    name = Path(path).name
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as content:
            arrays = {key: content[key] for key in content.files}
        description = json.loads(str(arrays.pop("description")))
        found = description.pop("kind"), description.pop("schema_version")
    except (zipfile.BadZipFile, EOFError, KeyError, ValueError, AttributeError, TypeError) as error:
        raise InvalidRequestError(f"{name} is damaged, or no file of id3pm: {error}") from None
    if found != (kind, SCHEMA_VERSION):
        raise InvalidRequestError(
            f"{name} is of kind {found[0]!r}, version {found[1]!r}: need {kind!r}, {SCHEMA_VERSION}"
        )
    keys = {"id_vector_model", "identity_dim", *more}
    if set(description) != keys:
        raise InvalidRequestError(f"{name}: its description has {sorted(description)}: need {sorted(keys)}")
    return description, arrays


def check_shapes(name: str, arrays: dict[str, npt.NDArray[Any]], shapes: dict[str, tuple[int, ...]]) -> None:
    """Raises `InvalidRequestError` unless a file holds exactly these arrays, finite and of these shapes."""
    found = {key: array.shape for key, array in arrays.items()}
    if found != shapes:
        raise InvalidRequestError(f"{name} holds arrays of shapes {found}: need {shapes}")
    if not all(array.dtype.kind == "f" and np.isfinite(array).all() for array in arrays.values()):
        raise InvalidRequestError(f"{name} holds values that are not finite numbers")


def pair(a: npt.ArrayLike, b: npt.ArrayLike, t: npt.ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Two unit vectors [..., D] and shares [..., 1], checked."""
    first, second = unit(a, None, "a"), unit(b, None, "b")
    if first.shape[-1] != second.shape[-1]:
        raise InvalidRequestError(f"a has {first.shape[-1]} numbers and b {second.shape[-1]}: need the same FR model's")
    return first, second, real(t, "t")[..., np.newaxis]


def unit(vectors: npt.ArrayLike | Sequence[Any], dim: int | None, name: str = "vector") -> Floats:
    """Vectors [..., D] scaled to L2 norm 1, float64; raises `InvalidRequestError` for what has no direction."""
    array = real(vectors, name)
    if array.ndim == 0 or array.shape[-1] == 0:
        raise InvalidRequestError(f"{name} has shape {list(array.shape)}: pass [D] or [..., D]")
    if dim is not None and array.shape[-1] != dim:
        raise InvalidRequestError(f"{name} has {array.shape[-1]} numbers: need {dim}")
    norms = np.linalg.norm(array, axis=-1, keepdims=True)
    if np.any(norms < SMALLEST_NORM):
        raise InvalidRequestError(f"{name} is zero, which has no direction: pass an ID vector")
    return np.asarray(array / norms)


def real(values: npt.ArrayLike | Sequence[Any], name: str) -> Floats:
    """Finite numbers as float64; raises `InvalidRequestError` for others."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidRequestError(f"{name}: pass numbers") from None
    if not np.isfinite(array).all():
        raise InvalidRequestError(f"{name} is not finite")
    return array


def finished(vectors: Floats) -> Vectors:
    """Results [..., D] scaled to L2 norm 1, float32; raises `InvalidRequestError` for zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if np.any(norms < SMALLEST_NORM):
        raise InvalidRequestError("the resulting vector is zero: choose other amounts or vectors")
    return np.asarray(vectors / norms, dtype=np.float32)
