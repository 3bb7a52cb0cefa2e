"""ID vectors, seeds and attributes as callers in this process give them: one row for each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from id3pm.attributes import AttributeSet, encode
from id3pm.diffusion.noise import check_seed, drawn_seed
from id3pm.errors import InvalidInputError

Attributes: TypeAlias = ArrayLike | Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""Vectors [A] or [N, A], or names with values; see `id3pm.pipeline.Pipeline.generate`."""


def attributes_of(
    attributes: Attributes | None, count: int, attribute_set: AttributeSet | None, bundle: str
) -> Sequence[NDArray[np.float32] | None]:
    """The attribute vector of each image, float32 [A], or `None` for unspecified.

    Args:
        attributes: As a caller gave them.
        count: Number of images.
        attribute_set: Of the bundle.
        bundle: Its name.

    Raises:
        InvalidInputError: They are no such vectors or names, or do not fit the number of images or the bundle.
    """
    if attributes is None:
        return [None] * count
    if isinstance(attributes, Mapping):
        return [_named(attributes, attribute_set, bundle)] * count
    if isinstance(attributes, Sequence) and attributes and isinstance(attributes[0], Mapping):
        vectors = np.stack([_named(values, attribute_set, bundle) for values in attributes])
    else:
        vectors = np.atleast_2d(_numbers("attributes", cast(ArrayLike, attributes)))
    if vectors.ndim != 2 or len(vectors) not in (1, count):
        raise InvalidInputError(
            f"attributes of shape {list(vectors.shape)} for {count} images: give [A], or one row for each"
        )
    return list(np.broadcast_to(vectors, (count, vectors.shape[1])))


def _named(values: Any, attribute_set: AttributeSet | None, bundle: str) -> NDArray[np.float32]:
    if attribute_set is None:
        raise InvalidInputError(f"bundle {bundle} takes no attributes")
    return encode(values, attribute_set)


def _numbers(name: str, value: ArrayLike) -> NDArray[np.float32]:
    try:
        with np.errstate(over="ignore"):  # too large for float32 becomes infinite, and is refused by the scheduler
            return np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{name}: expected numbers") from error


def paired(embeddings: ArrayLike, seeds: int | Sequence[int] | None) -> tuple[NDArray[np.float32], list[int]]:
    """ID vectors [N, D] and N seeds, a single one of either repeated; random seeds where there are none.

    Raises:
        InvalidInputError: They are no such numbers, or of different lengths.
    """
    vectors = np.atleast_2d(_numbers("embeddings", embeddings))
    if seeds is None:
        seeds = [drawn_seed() for _ in vectors]
    seed_list = [check_seed(seed) for seed in np.atleast_1d(np.asarray(seeds, dtype=object))]
    count = max(len(vectors), len(seed_list))
    if vectors.ndim != 2 or len(vectors) not in (1, count) or len(seed_list) not in (1, count) or not count:
        raise InvalidInputError(
            f"embeddings of shape {list(vectors.shape)} with {len(seed_list)} seeds: "
            "give [N, D] and N seeds, or one of either"
        )
    return np.broadcast_to(vectors, (count, vectors.shape[1])), seed_list * (count // len(seed_list))
