"""ID vectors from callers, checked; files of ID vectors, and those that `id3pm latent` writes."""

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
from id3pm_client._images import Embedding
from id3pm_client._tensors import plain

Vectors = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
SMALLEST_NORM = 1e-6
SCHEMA_VERSION = 1
VECTORS_KIND = "vectors"
_OWNER_ONLY = 0o600


def model_of(*values: object) -> str | None:
    """The FR model of every `Embedding` among values and in lists of them; `None` where there are only numbers.

    Raises:
        InvalidRequestError: They are of different models.
    """
    several = [each for value in values for each in (value if isinstance(value, (list, tuple)) else [value])]
    models = {each.id_vector_model for each in several if isinstance(each, Embedding)}
    if len(models) > 1:
        raise InvalidRequestError(f"vectors of {', '.join(sorted(models))}: pass those of one FR model")
    return models.pop() if models else None


def check_model(needed: str | None, *values: object) -> None:
    """Raises `InvalidRequestError` if an `Embedding` is of another FR model than is needed."""
    model = model_of(*values)
    if needed is not None and model not in (None, needed):
        raise InvalidRequestError(
            f"an ID vector of {model}, where one of {needed} is needed: other models' mean nothing"
        )


def load_vectors(path: str | os.PathLike[str]) -> tuple[npt.NDArray[Any], str | None]:
    """ID vectors of a `.npy` file as it holds them; or of `.npz` with `vectors`, and the FR model that it names.

    Raises:
        InvalidRequestError: It is neither, or holds no vector.
        OSError: It cannot be read.
    """
    model = None
    try:
        with open(path, "rb") as file:
            content = np.load(file, allow_pickle=False)
            if not isinstance(content, np.ndarray):
                arrays = {key: content[key] for key in content.files}
                content = arrays["vectors"]
                if "description" in arrays:
                    description = json.loads(str(arrays["description"]))
                    model = str(description["id_vector_model"])
                    if description["kind"] != VECTORS_KIND:
                        raise ValueError(f"it holds {description['kind']}")
    except (zipfile.BadZipFile, EOFError, KeyError, ValueError, TypeError) as error:
        raise InvalidRequestError(f"{path}: not a .npy file, nor .npz with vectors: {error}") from None
    if content.size == 0:
        raise InvalidRequestError(f"{path}: holds no vector, its shape is {content.shape}")
    return content, model


def save_vectors(path: str | os.PathLike[str], vectors: npt.NDArray[Any], id_vector_model: str) -> None:
    """Writes ID vectors: as `.npz` with the name of their FR model, or under any other suffix as plain `.npy`.

    They are biometric data: only the owner of the file may read it.
    """
    with open(path, "wb", opener=_private) as file:  # numpy would add an extension of its own to a path
        if hasattr(os, "fchmod"):  # not on Windows
            os.fchmod(file.fileno(), _OWNER_ONLY)
        if Path(path).suffix == ".npz":
            head = {"kind": VECTORS_KIND, "schema_version": SCHEMA_VERSION, "id_vector_model": id_vector_model}
            text = json.dumps({**head, "identity_dim": vectors.shape[-1]})
            np.savez(file, description=np.array(text), vectors=np.atleast_2d(vectors))
        else:
            np.save(file, vectors)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, _OWNER_ONLY)


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
    """Two unit vectors [..., D] of one FR model and shares [..., 1], checked."""
    model_of(a, b)
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
        array = np.asarray(plain(name, values), dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, InvalidRequestError):
            raise
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
