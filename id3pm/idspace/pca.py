"""Principal axes of ID vectors (paper, supplement 5.4, Figs. 14 and 15)."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from id3pm.errors import InvalidInputError
from id3pm.formats.arrays import check_shapes, read_arrays, write_arrays
from id3pm.idspace.space import Space, described
from id3pm.idspace.vectors import Floats, Vectors, coordinates, projected, unit, walked

SCHEMA_VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Description:
    """What the file says beside its arrays."""

    kind: Literal["pca"] = "pca"
    schema_version: int = SCHEMA_VERSION
    id_vector_model: str
    identity_dim: int
    count: int
    trained_on: str


@dataclasses.dataclass(frozen=True, eq=False)
class Pca:
    """Principal component analysis of ID vectors.

    Attributes:
        space: Which ID vectors.
        mean: Of the vectors it was fitted to, float64 [D]; shorter than 1.
        axes: Orthonormal rows, float64 [K, D], the one of largest variance first. Each points to where its number of
            largest magnitude is positive.
        variances: Along the axes, float64 [K].
        total_variance: Along all D.
        count: How many vectors it was fitted to.
        trained_on: What they were, in words.
    """

    space: Space
    mean: Floats
    axes: Floats
    variances: Floats
    total_variance: float
    count: int
    trained_on: str

    @property
    def explained(self) -> Floats:
        """Share of the variance along each axis, [K]."""
        return self.variances / self.total_variance

    def coordinates(self, vector: ArrayLike) -> Floats:
        """Where vectors [..., D] lie along the axes, from the mean: float64 [..., K].

        Raises:
            InvalidInputError: Of another length, zero or not finite.
        """
        return coordinates(vector, self.mean, self.axes)

    def walk(self, vector: ArrayLike, axis: int, amount: ArrayLike) -> Vectors:
        """Vectors moved along one axis.

        Args:
            vector: ID vectors [..., D].
            axis: From 0, the axis of largest variance, to K - 1.
            amount: How far, in L2 norms of the ID vector ("we normalize the size of the steps along the PCA directions
                by the L2 norm of the ID vectors"): 1 adds as much along the axis as the whole vector is long. Its axes
                broadcast with the leading ones of the vectors.

        Returns:
            Unit vectors, float32 [..., D].

        Raises:
            InvalidInputError: There is no such axis, a vector is of another length, zero or not finite.
        """
        return walked(vector, self.axes, axis, amount)

    def project(self, vector: ArrayLike, k: int) -> Vectors:
        """Vectors without all but the first k axes: what lies along the others is that of the mean.

        Args:
            vector: ID vectors [..., D].
            k: From 0, which leaves the mean, to K.

        Returns:
            Unit vectors, float32 [..., D]; with k = D the vectors themselves.

        Raises:
            InvalidInputError: k is out of range, a vector is of another length, zero or not finite.
        """
        return projected(vector, self.mean, self.axes, k)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a file, arrays in float32."""
        description = _Description(
            id_vector_model=self.space.id_vector_model,
            identity_dim=self.space.identity_dim,
            count=self.count,
            trained_on=self.trained_on,
        )
        arrays = {"mean": self.mean, "axes": self.axes, "variances": self.variances}
        arrays["total_variance"] = np.array(self.total_variance)
        write_arrays(
            path, dataclasses.asdict(description), {name: array.astype(np.float32) for name, array in arrays.items()}
        )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Pca:
        """Reads a file that `save` wrote.

        Raises:
            InvalidInputError: It is damaged, of another kind or version, or does not fit its description.
            OSError: It cannot be read.
        """
        raw, arrays = read_arrays(path, "pca")
        name = Path(path).name
        description = described(_Description, raw, name, SCHEMA_VERSION)
        dim = description.identity_dim
        axes = arrays.get("axes", np.empty(0))
        shapes = {"mean": (dim,), "axes": (len(axes), dim), "variances": (len(axes),), "total_variance": ()}
        check_shapes(name, arrays, shapes)
        found = {key: arrays[key].astype(np.float64) for key in shapes}
        return cls(
            space=Space(id_vector_model=description.id_vector_model, identity_dim=dim),
            total_variance=float(found.pop("total_variance")),
            count=description.count,
            trained_on=description.trained_on,
            **found,
        )


def fit_pca(vectors: ArrayLike, *, id_vector_model: str, trained_on: str) -> Pca:
    """All principal axes of ID vectors, by a singular value decomposition in float64.

    Args:
        vectors: [N, D], N of at least 2.
        id_vector_model: The FR model that they come from.
        trained_on: What they are, for the reader of the file.

    Returns:
        min(N - 1, D) axes.

    Raises:
        InvalidInputError: Fewer than two vectors, one is zero or not finite, or all are the same.
    """
    rows = unit(vectors, name="vectors")
    if rows.ndim != 2 or len(rows) < 2:
        raise InvalidInputError(f"vectors have shape {list(rows.shape)}: need [N, D] with N of at least 2")
    mean = rows.mean(axis=0)
    _, singular, axes = np.linalg.svd(rows - mean, full_matrices=False)
    count = min(len(rows) - 1, rows.shape[1])
    variances = singular**2 / (len(rows) - 1)
    if variances.sum() < 1e-12:
        raise InvalidInputError("the vectors are all the same: they have no axes")
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=1)[:, np.newaxis], axis=1)
    return Pca(
        space=Space(id_vector_model=id_vector_model, identity_dim=rows.shape[1]),
        mean=mean,
        axes=(axes * np.sign(largest))[:count],
        variances=variances[:count],
        total_variance=float(variances.sum()),
        count=len(rows),
        trained_on=trained_on,
    )
