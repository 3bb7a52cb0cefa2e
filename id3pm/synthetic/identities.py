"""Where the identities of a data set come from: people who are given, points on the sphere, between people."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from id3pm.errors import InvalidInputError
from id3pm.formats import datasets as shards
from id3pm.idspace.files import read_vectors
from id3pm.idspace.pca import Pca
from id3pm.idspace.space import Space
from id3pm.idspace.vectors import Vectors, finished, slerp, unit
from id3pm.synthetic.draws import IDENTITY, Draw, generator
from id3pm.synthetic.packing import Candidates, pack, require_count
from id3pm.synthetic.plan_file import MAX_IDENTITIES

Source = Literal["people", "sphere", "pca", "between"]
SOURCES: tuple[Source, ...] = get_args(Source)


@dataclasses.dataclass(frozen=True, eq=False)
class Identities:
    """The people of a plan.

    Attributes:
        vectors: ID vectors, float32 [N, D], L2 norm 1.
        origins: Of each, where it comes from, such as `sphere 17` or `people 3 and 8 at 0.50`.
        closest_degrees: Angle of the two that are closest.
        candidates: How many vectors were looked at.
    """

    vectors: Vectors
    origins: list[str]
    closest_degrees: float
    candidates: int


def choose(
    source: Source,
    count: int | None,
    least_degrees: float,
    seed: int,
    space: Space,
    people: Vectors | None = None,
    pca: Pca | None = None,
    share: Draw | None = None,
) -> Identities:
    """The identities.

    Args:
        source: `people`: those given; `sphere`: uniform on the unit sphere; `pca`: normally distributed along principal
            axes; `between`: on the great circle between two of the people.
        count: How many; `None` for all people.
        least_degrees: Smallest angle between any two, 0 .. 180; 0 for any.
        seed: Of all that is drawn.
        space: Which ID vectors the bundle takes.
        people: [M, D], for `people` and `between`.
        pca: For `pca`.
        share: Of the way between two people.

    Raises:
        InvalidInputError: An argument is missing or breaks a rule, or there are not so many; the message says how many.
    """
    if not 0 <= least_degrees < 180:
        raise InvalidInputError(f"least_angle={least_degrees}: must be from 0 to below 180 degrees")
    if source in ("people", "between"):
        if people is None:
            raise InvalidInputError(f"source {source}: needs --people, a file or data set of ID vectors")
        people = finished(unit(people, space.identity_dim, "a person's vector"))
    if count is None and people is None:
        raise InvalidInputError(f"source {source}: say how many identities are wanted")
    if source == "people":
        assert people is not None
        total = len(people) if count is None else count
        return _packed(lambda start, n: people[start : start + n], lambda i: f"people {i}", total, least_degrees)
    total = count if count is not None else len(people) if people is not None else 0
    if source == "sphere":
        return _packed(
            lambda start, n: _normal(seed, start, n, space.identity_dim), lambda i: f"sphere {i}", total, least_degrees
        )
    if source == "pca":
        if pca is None:
            raise InvalidInputError("source pca: needs --pca, a file of id3pm latent fit-pca")
        space.require(pca.space, "the PCA")
        return _packed(_along(pca, seed), lambda i: f"pca {i}", total, least_degrees)
    assert people is not None
    if len(people) < 2:
        raise InvalidInputError(f"source between: needs two people or more, has {len(people)}")
    return _between(people, share or Draw(low=0.5, high=0.5), total, least_degrees, seed)


def read_people(path: Path, split: shards.Split, space: Space) -> Vectors:
    """ID vectors [N, D] of a `.npy` or `.npz` file, or of one half of a data set.

    Raises:
        InvalidInputError: Something else, damaged, or of another FR model.
        OSError: It cannot be read.
    """
    if path.is_dir():
        model, vectors = shards.describe(path).get("id_vector_model"), shards.load(path, split)["vectors"]
    else:
        found = read_vectors(path)
        model, vectors = found.id_vector_model, found.vectors
    given = Space(id_vector_model=model or space.id_vector_model, identity_dim=vectors.shape[-1])
    given.require(space, "the bundle")
    return vectors


def _packed(draw: Candidates, origin: Callable[[int], str], count: int, least_degrees: float) -> Identities:
    if not 1 <= count <= MAX_IDENTITIES:
        raise InvalidInputError(f"identities={count}: must be from 1 to {MAX_IDENTITIES}")
    packing = pack(draw, count, least_degrees)
    require_count(packing, count, least_degrees)
    origins = [origin(int(number)) for number in packing.numbers]
    return Identities(packing.vectors, origins, packing.closest_degrees, packing.candidates)


def _normal(seed: int, start: int, count: int, dim: int) -> Vectors:
    """Points on the sphere, uniform: normally distributed vectors scaled to norm 1."""
    return finished(np.stack([generator(seed, i, IDENTITY).standard_normal(dim) for i in range(start, start + count)]))


def _along(pca: Pca, seed: int) -> Candidates:
    deviations = np.sqrt(pca.variances)

    def draw(start: int, count: int) -> Vectors:
        numbers = range(start, start + count)
        normal = np.stack([generator(seed, i, IDENTITY).standard_normal(len(deviations)) for i in numbers])
        return finished(pca.mean + (normal * deviations) @ pca.axes)

    return draw


def _between(people: Vectors, share: Draw, count: int, least_degrees: float, seed: int) -> Identities:
    def pair(number: int) -> tuple[int, int, float]:
        random = generator(seed, number, IDENTITY)
        first, second = random.choice(len(people), 2, replace=False).tolist()
        return first, second, share.value(random)

    def draw(start: int, n: int) -> Vectors:
        pairs = [pair(number) for number in range(start, start + n)]
        return np.stack([slerp(people[a], people[b], t) for a, b, t in pairs])

    def origin(number: int) -> str:
        first, second, at = pair(number)
        return f"people {first} and {second} at {at:.2f}"

    return _packed(draw, origin, count, least_degrees)
