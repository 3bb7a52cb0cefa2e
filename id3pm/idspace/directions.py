"""Custom directions: an ID vector moved along a labelled property (paper, Figs. 6, 16, 17; supplement 5.5)."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from id3pm.errors import InvalidInputError
from id3pm.formats.arrays import check_shapes, read_arrays, write_arrays
from id3pm.idspace.space import Space, described
from id3pm.idspace.vectors import Floats, Vectors, moved, orthogonal, real, unit

SCHEMA_VERSION = 1

Model = Literal["logistic", "linear"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """How well the direction tells the label of vectors it was not fitted to (cross-validation).

    Attributes:
        accuracy: Share of vectors on the right side: of two classes, or of the median of a continuous label.
        accuracy_interval: 95 % confidence interval (Wilson).
        baseline: Accuracy of always naming the larger class.
        r2: Explained share of a continuous label's variance; `None` for two classes.
        r2_interval: 95 % confidence interval (bootstrap).
        count: Vectors.
    """

    accuracy: float
    accuracy_interval: tuple[float, float]
    baseline: float
    r2: float | None = None
    r2_interval: tuple[float, float] | None = None
    count: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """What is known about a direction.

    Attributes:
        name: Unique in its file.
        label: What was labelled, with its unit.
        low: What a negative strength leads to, in a word or two.
        high: What a positive strength leads to.
        step: Length of strength 1 in L2 norms of the ID vector: the standard deviation of the training vectors along
            the direction as it was fitted.
        model: What was fitted.
        score: See `Score`; `None` where the direction was not fitted but given.
        trained_on: The labelled vectors, in words.
        orthogonal_to: Names of the directions that were taken out of it.
    """

    name: str
    label: str
    low: str
    high: str
    step: float
    model: Model
    score: Score | None
    trained_on: str
    orthogonal_to: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name or not 0.0 < self.step < np.inf:
            raise InvalidInputError(f"direction name={self.name!r}, step={self.step}: need a name and a positive step")


@dataclasses.dataclass(frozen=True, eq=False)
class Direction:
    """One direction in the space of ID vectors.

    Attributes:
        space: Which ID vectors.
        vector: Where it points, float64 [D], L2 norm 1.
        card: What is known about it.
    """

    space: Space
    vector: Floats
    card: Card

    def apply(self, vector: ArrayLike, strength: ArrayLike) -> Vectors:
        """Vectors moved along the direction.

        Args:
            vector: ID vectors [..., D].
            strength: How far, in steps (`Card.step`): standard deviations of people. Its axes broadcast with the
                leading ones of the vectors.

        Returns:
            Unit vectors, float32 [..., D].

        Raises:
            InvalidInputError: A vector is of another length, zero or not finite.
        """
        return moved(vector, self.vector, real(strength, "strength") * self.card.step, "strength")

    def coordinate(self, vector: ArrayLike) -> Floats:
        """Where vectors [..., D] lie along the direction, in steps: float64 [...].

        Raises:
            InvalidInputError: A vector is of another length, zero or not finite.
        """
        return np.asarray(unit(vector, self.space.identity_dim) @ self.vector / self.card.step)

    def orthogonal_to(self, *others: Direction) -> Direction:
        """This direction without what it shares with others, so that it no longer moves along them.

        The length of a step stays. `others` need not be orthogonal to each other.

        Raises:
            InvalidInputError: One is of another space, or nothing is left.
        """
        if not others:
            return self
        for other in others:
            self.space.require(other.space, f"direction {other.card.name}")
        names = tuple(dict.fromkeys((*self.card.orthogonal_to, *(other.card.name for other in others))))
        problem = f"direction {self.card.name} lies in the span of {', '.join(names)}"
        left = orthogonal(self.vector, np.stack([other.vector for other in others]), problem)
        return Direction(self.space, left, dataclasses.replace(self.card, orthogonal_to=names))


class Directions(Mapping[str, Direction]):
    """Named directions of one space, in the order of their file.

    Args:
        space: Which ID vectors.
        directions: With different names.

    Raises:
        InvalidInputError: One is of another space, or two have one name.
    """

    def __init__(self, space: Space, directions: tuple[Direction, ...]) -> None:
        for direction in directions:
            space.require(direction.space, f"direction {direction.card.name}")
        self.space = space
        self._by_name = {direction.card.name: direction for direction in directions}
        if len(self._by_name) != len(directions):
            raise InvalidInputError(f"directions {[one.card.name for one in directions]}: names must be different")

    def __getitem__(self, name: str) -> Direction:
        """The direction of a name.

        Raises:
            KeyError: There is none; the message lists them.
        """
        if name not in self._by_name:
            raise KeyError(f"there is no direction {name!r}; there are {', '.join(self._by_name)}")
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def adding(self, direction: Direction) -> Directions:
        """These directions with one more, or with another one of its name."""
        others = (self._by_name[name] for name in self._by_name if name != direction.card.name)
        return Directions(self.space, (*others, direction))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a file, vectors in float32.

        Raises:
            InvalidInputError: There are no directions.
        """
        if not self._by_name:
            raise InvalidInputError("there are no directions to save")
        cards = tuple(direction.card for direction in self.values())
        description = _Description(**dataclasses.asdict(self.space), directions=cards)
        vectors = np.stack([direction.vector for direction in self.values()])
        write_arrays(path, dataclasses.asdict(description), {"vectors": vectors.astype(np.float32)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Directions:
        """Reads a file that `save` wrote.

        Raises:
            InvalidInputError: It is damaged, of another kind or version, or does not fit its description.
            OSError: It cannot be read.
        """
        raw, arrays = read_arrays(path, "directions")
        name = Path(path).name
        description = described(_Description, raw, name, SCHEMA_VERSION)
        space = Space(id_vector_model=description.id_vector_model, identity_dim=description.identity_dim)
        check_shapes(name, arrays, {"vectors": (len(description.directions), space.identity_dim)})
        vectors = unit(arrays["vectors"], name=f"{name}: a direction")
        return cls(space, tuple(map(Direction, [space] * len(vectors), vectors, description.directions)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Description:
    """What the file says beside its array."""

    kind: Literal["directions"] = "directions"
    schema_version: int = SCHEMA_VERSION
    id_vector_model: str
    identity_dim: int
    directions: tuple[Card, ...]
