"""The ID-vector space on the client: interpolation, principal axes, custom directions, means.

ID vectors are plain inputs of a request, so a server needs to know nothing of this:

    from id3pm_client import Client
    from id3pm_client.latent import Directions, Pca, slerp

    smile = Directions.load("bundles/demo/latent/directions.npz")["smile"]
    with Client() as client:
        face = client.embed("portrait.jpg")
        images = client.generate(smile.apply(face, [-4, -2, 0, 2, 4]), seed=0)

Every function takes any vectors that are not zero, scales them to L2 norm 1 first, and gives unit vectors back. Shapes
broadcast: the leading axes of vectors [..., D] go with the axes of amounts, so one vector and T amounts give [T, D].
An `Embedding` names its FR model, and is refused if another is needed; of plain arrays only the length is
checked, which several models share.
The maths is that of `id3pm.idspace`, which also fits the files that are read here.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from id3pm_client import _idspace as idspace
from id3pm_client._arrays import check_shapes
from id3pm_client._errors import InvalidRequestError
from id3pm_client._idspace import Floats, Vectors
from id3pm_client._images import Embedding
from id3pm_client._tensors import plain
from id3pm_client._types import JsonObject
from id3pm_client._vectors import check_model, model_of, read

__all__ = ["Direction", "Directions", "Pca", "lerp", "mean_vector", "slerp"]

_CARD_KEYS = frozenset(
    ("name", "label", "low", "high", "step", "model", "score", "trained_on", "orthogonal_to")
)  # fmt: skip


def slerp(a: npt.ArrayLike, b: npt.ArrayLike, t: npt.ArrayLike) -> Vectors:
    """Spherical linear interpolation: along the great circle, at constant speed.

    Args:
        a: ID vectors [..., D] or an `Embedding`, where t is 0.
        b: The same, where t is 1.
        t: Share of the way; outside 0 .. 1 goes on along the circle. One pair and T shares give [T, D].

    Returns:
        Unit vectors, float32 [..., D].

    Raises:
        InvalidRequestError: A vector is zero or not finite, the lengths or FR models differ, or a and b are opposite to
            each other.
    """
    model_of(a, b)
    return idspace.slerp(plain("a", a), plain("b", b), plain("t", t))


def lerp(a: npt.ArrayLike, b: npt.ArrayLike, t: npt.ArrayLike) -> Vectors:
    """Linear interpolation, brought back to L2 norm 1: the path of `slerp`, but faster in its middle.

    Arguments, result and errors are those of `slerp`; the line between opposite vectors meets zero at t = 0.5.
    """
    model_of(a, b)
    return idspace.lerp(plain("a", a), plain("b", b), plain("t", t))


def mean_vector(vectors: npt.ArrayLike | Sequence[npt.ArrayLike | Embedding]) -> Vectors:
    """One ID vector for several photographs of a person: the direction of the mean of unit vectors.

    Args:
        vectors: ID vectors [N, D], or a list of vectors or of `Embedding`.

    Returns:
        A unit vector, float32 [D].

    Raises:
        InvalidRequestError: Not [N, D] with N of at least 1, a vector is zero or not finite, the FR models differ, or
            the mean is zero.
    """
    model_of(vectors)
    return idspace.mean_vector(plain("vectors", vectors))


@dataclasses.dataclass(frozen=True, eq=False)
class Pca:
    """Principal axes of ID vectors: `latent/pca.npz` of a bundle.

    Attributes:
        id_vector_model: The FR model whose vectors they belong to.
        mean: float64 [D].
        axes: Orthonormal rows, float64 [K, D], the one of largest variance first.
        variances: Along the axes, float64 [K].
    """

    id_vector_model: str
    mean: Floats
    axes: Floats
    variances: Floats

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Pca:
        """Reads a file of `id3pm latent fit-pca`.

        Raises:
            InvalidRequestError: It is no such file, or of another version.
            OSError: It cannot be read.
        """
        description, arrays = read(path, "pca", {"count", "trained_on"})
        dim, name = description["identity_dim"], Path(path).name
        axes = arrays.get("axes", np.empty(0))
        count = len(axes)
        check_shapes(name, arrays, {"mean": (dim,), "axes": (count, dim), "variances": (count,), "total_variance": ()})
        mean, axes, variances = (arrays[key].astype(np.float64) for key in ("mean", "axes", "variances"))
        return cls(description["id_vector_model"], mean, axes, variances)

    def coordinates(self, vector: npt.ArrayLike) -> Floats:
        """Where vectors [..., D] lie along the axes, from the mean: float64 [..., K].

        Raises:
            InvalidRequestError: A vector is of another length or FR model, zero or not finite.
        """
        return idspace.coordinates(self._checked(vector), self.mean, self.axes)

    def walk(self, vector: npt.ArrayLike, axis: int, amount: npt.ArrayLike) -> Vectors:
        """Vectors moved along one axis.

        Args:
            vector: ID vectors [..., D], or an `Embedding`.
            axis: From 0, the axis of largest variance.
            amount: How far, in L2 norms of the ID vector; one vector and T amounts give [T, D].

        Returns:
            Unit vectors, float32 [..., D].

        Raises:
            InvalidRequestError: There is no such axis, a vector is of another length or FR model, zero or not finite.
        """
        return idspace.walked(self._checked(vector), self.axes, axis, plain("amount", amount))

    def project(self, vector: npt.ArrayLike, k: int) -> Vectors:
        """Vectors without all but the first k axes: what lies along the others is that of the mean.

        Args:
            vector: ID vectors [..., D], or an `Embedding`.
            k: From 0, which leaves the mean, to K.

        Returns:
            Unit vectors, float32 [..., D].

        Raises:
            InvalidRequestError: k is out of range, a vector is of another length or FR model, zero or not finite.
        """
        return idspace.projected(self._checked(vector), self.mean, self.axes, k)

    def _checked(self, vector: npt.ArrayLike) -> npt.ArrayLike:
        check_model(self.id_vector_model, vector)
        checked: npt.ArrayLike = plain("vector", vector)
        return checked


@dataclasses.dataclass(frozen=True, eq=False)
class Direction:
    """A custom direction: along which something that was labelled changes.

    Attributes:
        name: Of the direction.
        vector: Where it points, float64 [D], L2 norm 1.
        step: Length of strength 1 in L2 norms of the ID vector: one standard deviation of people.
        low: What a negative strength leads to, in a word or two.
        high: What a positive strength leads to.
        label: What was labelled, with its unit.
        score: How well it tells the label (`accuracy`, `accuracy_interval`, `baseline`, `r2`, `r2_interval`, `count`),
            or `None`.
        orthogonal_names: Names of the directions that were taken out of it.
        id_vector_model: The FR model whose vectors it belongs to, or `None` where that is not known.
    """

    name: str
    vector: Floats
    step: float
    low: str
    high: str
    label: str
    score: JsonObject | None = None
    orthogonal_names: tuple[str, ...] = ()
    id_vector_model: str | None = None

    def apply(self, vector: npt.ArrayLike, strength: npt.ArrayLike) -> Vectors:
        """Vectors moved along the direction.

        Args:
            vector: ID vectors [..., D], or an `Embedding`.
            strength: How far, in steps; one vector and T strengths give [T, D].

        Returns:
            Unit vectors, float32 [..., D].

        Raises:
            InvalidRequestError: A vector is of another length or FR model, zero or not finite.
        """
        check_model(self.id_vector_model, vector)
        amount = idspace.real(plain("strength", strength), "strength") * self.step
        return idspace.moved(plain("vector", vector), self.vector, amount, "strength")

    def orthogonal_to(self, *others: Direction) -> Direction:
        """This direction without what it shares with others, so that it no longer moves along them.

        The length of a step stays. `others` need not be orthogonal to each other.

        Raises:
            InvalidRequestError: One is of another length or FR model, or nothing is left.
        """
        if not others:
            return self
        names = tuple(dict.fromkeys((*self.orthogonal_names, *(other.name for other in others))))
        if any(other.vector.size != self.vector.size for other in others):
            raise InvalidRequestError(f"{', '.join(names)}: not all of {self.vector.size} numbers, as {self.name} is")
        if len(models := {one.id_vector_model for one in (self, *others)} - {None}) > 1:
            raise InvalidRequestError(f"{', '.join(names)}, {self.name}: for vectors of different FR models: {models}")
        problem = f"direction {self.name} lies in the span of {', '.join(names)}"
        left = idspace.orthogonal(self.vector, np.stack([other.vector for other in others]), problem)
        return dataclasses.replace(self, vector=left, orthogonal_names=names)


class Directions(Mapping[str, Direction]):
    """Custom directions by name, in the order of their file: `latent/directions.npz` of a bundle.

    Attributes:
        id_vector_model: The FR model whose vectors they belong to.
    """

    def __init__(self, id_vector_model: str, directions: Sequence[Direction]) -> None:
        self.id_vector_model = id_vector_model
        self._by_name = {direction.name: direction for direction in directions}

    def __getitem__(self, name: str) -> Direction:
        if name not in self._by_name:
            raise KeyError(f"there is no direction {name!r}; there are {', '.join(self._by_name)}")
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Directions:
        """Reads a file of `id3pm latent fit-direction`.

        Raises:
            InvalidRequestError: It is no such file, or of another version.
            OSError: It cannot be read.
        """
        description, arrays = read(path, "directions", {"directions"})
        name, cards = Path(path).name, description["directions"]
        if not isinstance(cards, list) or not all(isinstance(card, dict) and set(card) == _CARD_KEYS for card in cards):
            raise InvalidRequestError(f"{name}: each direction must have exactly {', '.join(sorted(_CARD_KEYS))}")
        check_shapes(name, arrays, {"vectors": (len(cards), description["identity_dim"])})
        shown = ("name", "step", "low", "high", "label", "score")
        model = description["id_vector_model"]
        directions = [
            Direction(
                **{key: card[key] for key in shown},
                vector=vector,
                orthogonal_names=tuple(card["orthogonal_to"]),
                id_vector_model=model,
            )
            for card, vector in zip(cards, idspace.unit(arrays["vectors"], name=name), strict=True)
        ]
        return cls(model, directions)
