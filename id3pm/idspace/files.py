"""ID vectors and labels from files: arrays, tables, data sets, photographs."""

from __future__ import annotations

import csv
import dataclasses
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.attributes import ATTRIBUTE_SETS, NULL_VALUE
from id3pm.errors import Id3pmError, InvalidInputError
from id3pm.face.appearance import LABELS, measure
from id3pm.face.stage import FaceStage
from id3pm.formats import datasets as shards
from id3pm.formats.arrays import DESCRIPTION, private, write_arrays
from id3pm.idspace.space import Space

_UNREADABLE = (zipfile.BadZipFile, EOFError, KeyError, ValueError, AttributeError, TypeError)  # what numpy raises
VECTORS_KIND = "vectors"
FACES = Path("face_embedding/1/engine")
"""The face models in a model repository."""


@dataclasses.dataclass(frozen=True, eq=False)
class Vectors:
    """ID vectors of many people.

    Attributes:
        vectors: float32 [N, D].
        id_vector_model: The FR model they come from, or `None` where the file does not say.
        text: What they are, for the reader of a fitted file.
        dataset: The arrays of the data set (`id3pm.formats.datasets`) that they lie in, or `None`.
        fields: Names of the columns of the data set's attributes; empty where it has none.
        labels: float64 [N] where the file has them, or `None`.
    """

    vectors: NDArray[np.float32]
    id_vector_model: str | None
    text: str
    dataset: dict[str, NDArray[Any]] | None = None
    fields: tuple[str, ...] = ()
    labels: NDArray[np.float64] | None = None


def read_vectors(path: Path) -> Vectors:
    """The vectors of a file or a data set.

    Args:
        path: `.npy` [N, D] or [D]; `.npz` with `vectors` of these shapes and perhaps `labels` [N], which names the FR
            model if `id3pm latent` or `id3pm-client embed` wrote it; or a data set's folder, of which the training
            half is taken.

    Raises:
        InvalidInputError: Something else, or damaged.
        OSError: It cannot be read.
    """
    if path.is_dir():
        return _dataset(path)
    try:
        with path.open("rb") as file:
            content: Any = np.load(file, allow_pickle=False)
            arrays = {"vectors": content} if isinstance(content, np.ndarray) else dict(content)
        vectors = np.atleast_2d(np.asarray(arrays["vectors"], dtype=np.float32))
        model = saved_model(arrays)
        labels = np.asarray(arrays["labels"], dtype=np.float64) if "labels" in arrays else None
    except _UNREADABLE as error:
        raise InvalidInputError(
            f"{path.name}: need .npy [N, D], .npz with `vectors` [N, D], or a data set's folder ({error})"
        ) from error
    if vectors.ndim != 2 or (labels is not None and labels.shape != vectors.shape[:1]):
        raise InvalidInputError(
            f"{path.name}: vectors are {vectors.shape}: need [N, D], and [N] labels where there are any"
        )
    return Vectors(vectors, model, f"{len(vectors)} vectors of {path.name}", labels=labels)


def read_faces(source: Path, repository: Path) -> Vectors:
    """The vectors of a `.npy` or `.npz` file, or that of the largest face in a photograph.

    Args:
        source: The file.
        repository: Built face models, for photographs.

    Raises:
        InvalidInputError: Neither, or no face.
        OSError: It cannot be read.
    """
    if source.suffix in (".npy", ".npz"):
        return dataclasses.replace(read_vectors(source), text=source.name)
    stage = FaceStage.load(repository / FACES)
    try:
        return Vectors(stage.embed(source.read_bytes()).embedding[np.newaxis], stage.id_vector_model, source.name)
    except Id3pmError as error:
        raise type(error)(f"{source.name}: {error}") from error


def in_space(found: Vectors, space: Space, name: str) -> NDArray[np.float32]:
    """The vectors [N, D].

    Raises:
        InvalidInputError: They are of another space than that of the file `name`: of another length, or of an FR model
            that is known to be another one.
    """
    model = found.id_vector_model or space.id_vector_model
    Space(id_vector_model=model, identity_dim=found.vectors.shape[-1]).require(space, name)
    return found.vectors


def one_model(found: Sequence[Vectors]) -> str | None:
    """The FR model of all vectors; `None` where one does not say.

    Raises:
        InvalidInputError: They are of different models.
    """
    names = {one.id_vector_model: one.text for one in found}
    known = [f"{name} of {model}" for model, name in names.items() if model is not None]
    if len(known) > 1:
        raise InvalidInputError(f"{', '.join(known)}: vectors of different FR models have nothing in common")
    return None if None in names else next(iter(names))


def saved_model(arrays: Mapping[str, NDArray[Any]]) -> str | None:
    """The FR model that a file of vectors names in its description, or `None` where it has none.

    Raises:
        KeyError: Its description does not name the model.
        ValueError: Its description is no JSON, or of another kind.
    """
    if DESCRIPTION not in arrays:
        return None
    description = json.loads(str(arrays[DESCRIPTION]))
    if not isinstance(description, dict) or description.get("kind") != VECTORS_KIND:
        raise ValueError(f"its description is not of kind {VECTORS_KIND!r}")
    return str(description["id_vector_model"])


def write_vectors(path: Path, vectors: NDArray[np.float32], id_vector_model: str | None) -> None:
    """Writes ID vectors [N, D] or [D]: as `.npz` with the name of their FR model, else as plain `.npy`.

    They are biometric data: only the owner of the file may read it.

    Raises:
        InvalidInputError: `.npz`, and the model is not known.
    """
    if path.suffix == ".npz":
        if id_vector_model is None:
            raise InvalidInputError(
                f"{path.name}: .npz names the FR model of the vectors, which is not known here: write .npy"
            )
        description = {
            "kind": VECTORS_KIND,
            "schema_version": 1,
            "id_vector_model": id_vector_model,
            "identity_dim": vectors.shape[-1],
        }
        write_arrays(path, description, {"vectors": np.atleast_2d(vectors)}, opener=private)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb", opener=private) as file:  # np.save would add an extension of its own to a path
        np.save(file, vectors)


def _dataset(folder: Path) -> Vectors:
    description = shards.describe(folder)
    arrays = shards.load(folder, "train")
    attribute_set: Any = description.get("attribute_set")
    fields = ATTRIBUTE_SETS.get(attribute_set, ()) if "attributes" in arrays else ()
    return Vectors(
        vectors=arrays["vectors"],
        id_vector_model=description.get("id_vector_model"),
        text=f"training half of the data set {folder.name} ({len(arrays['vectors'])} faces)",
        dataset=arrays,
        fields=tuple(field.name for field in fields),
    )


def read_labels(path: Path) -> tuple[NDArray[np.int64] | None, NDArray[np.float64]]:
    """Labels from a table.

    Args:
        path: CSV with the columns `index` and `label`, in any order, others are ignored; or `.npz` with `labels` [N]
            and perhaps `index` [N].

    Returns:
        Row of each label's vector, [M], or `None` for one label per vector in order; and the labels, [M].

    Raises:
        InvalidInputError: Something else; the message names the line.
        OSError: It cannot be read.
    """
    if path.suffix.lower() == ".csv":
        return _csv(path)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            labels = np.asarray(content["labels"], dtype=np.float64)
            index = np.asarray(content["index"], dtype=np.int64) if "index" in content else None
    except _UNREADABLE as error:
        raise InvalidInputError(f"{path.name}: need CSV (index,label), or .npz with `labels` ({error})") from error
    if labels.ndim != 1 or (index is not None and index.shape != labels.shape):
        raise InvalidInputError(
            f"{path.name}: labels are {labels.shape}: need [N], and `index` as long where it is given"
        )
    return index, labels


def _csv(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    index, labels = [], []
    with path.open(encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file)
        if not {"index", "label"} <= set(table.fieldnames or ()):
            raise InvalidInputError(f"{path.name}: the first line must name the columns index and label")
        for row in table:
            try:
                index.append(int(row["index"]))
                labels.append(float(row["label"]))
            except (TypeError, ValueError) as error:
                raise InvalidInputError(f"{path.name}, line {table.line_num}: {error}") from error
    return np.array(index, dtype=np.int64), np.array(labels, dtype=np.float64)


def labelled(source: Vectors, labels: Path | None, attribute: str | None) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Vectors [M, D] and their labels [M].

    Args:
        source: The vectors.
        labels: A table of labels for them (`read_labels`); `None` takes the attribute, or the file's own labels.
        attribute: What is measured on the pictures of a data set: a field of its attributes, or a key of
            `id3pm.face.appearance.LABELS`.

    Raises:
        InvalidInputError: There are no such labels, or they do not fit.
    """
    if (labels is None) == (attribute is None) and not (labels is None and source.labels is not None):
        raise InvalidInputError("give either --labels or --attribute")
    if attribute is not None:
        values = _attribute(source, attribute)
    elif labels is not None:
        index, given = read_labels(labels)
        if index is None and len(given) != len(source.vectors):
            raise InvalidInputError(f"{len(given)} labels for {len(source.vectors)} vectors: give an index with them")
        rows = np.arange(len(given)) if index is None else index
        if len(np.unique(rows)) != len(rows) or np.any((rows < 0) | (rows >= len(source.vectors))):
            raise InvalidInputError(f"index: must be different rows of the vectors, 0 to {len(source.vectors) - 1}")
        values = np.full(len(source.vectors), np.nan)
        values[rows] = given
    else:
        assert source.labels is not None
        values = source.labels
    known = np.isfinite(values)
    return source.vectors[known], values[known]


def _attribute(source: Vectors, name: str) -> NDArray[np.float64]:
    """A label of every picture of a data set, NaN where it is unknown."""
    if source.dataset is None:
        raise InvalidInputError(f"--attribute {name}: needs a data set's folder; for other vectors give --labels")
    if name in source.fields:
        values = source.dataset["attributes"][:, source.fields.index(name)].astype(np.float64)
        values[values == NULL_VALUE] = np.nan
        return values
    if name not in LABELS:
        raise InvalidInputError(f"--attribute {name}: choose one of {', '.join((*source.fields, *LABELS))}")
    return measure(name, source.dataset["images"], source.dataset["detections"])
