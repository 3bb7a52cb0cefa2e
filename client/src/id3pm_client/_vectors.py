"""FR models of ID vectors; files of ID vectors, and those that `id3pm latent` writes."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import numpy as np

from id3pm_client._arrays import private, read_arrays, write_arrays
from id3pm_client._errors import InvalidRequestError
from id3pm_client._images import Embedding
from id3pm_client._types import Array, JsonObject

SCHEMA_VERSION = 1
VECTORS_KIND = "vectors"


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


def load_vectors(path: str | os.PathLike[str]) -> tuple[Array, str | None]:
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


def save_vectors(path: str | os.PathLike[str], vectors: Array, id_vector_model: str) -> None:
    """Writes ID vectors: as `.npz` with the name of their FR model, or under any other suffix as plain `.npy`.

    They are biometric data: only the owner of the file may read it.
    """
    if Path(path).suffix == ".npz":
        head = {"kind": VECTORS_KIND, "schema_version": SCHEMA_VERSION, "id_vector_model": id_vector_model}
        description = {**head, "identity_dim": vectors.shape[-1]}
        write_arrays(path, description, {"vectors": np.atleast_2d(vectors)}, opener=private)
        return
    with open(path, "wb", opener=private) as file:  # numpy would add an extension of its own to a path
        np.save(file, vectors)


def read(path: str | os.PathLike[str], kind: str, more: set[str]) -> tuple[JsonObject, dict[str, Array]]:
    """Description and arrays of a file of `id3pm latent`; `more` are keys of its description beside the common ones.

    Raises:
        InvalidRequestError: It is no such file, or of another version.
        OSError: It cannot be read.
    """
    name = Path(path).name
    description, arrays = read_arrays(path, kind)
    if (version := description.get("schema_version")) != SCHEMA_VERSION:
        raise InvalidRequestError(f"{name} is of version {version!r}: need {SCHEMA_VERSION}")
    keys = {"kind", "schema_version", "id_vector_model", "identity_dim", *more}
    if set(description) != keys:
        raise InvalidRequestError(f"{name}: its description has {sorted(description)}: need {sorted(keys)}")
    return description, arrays
