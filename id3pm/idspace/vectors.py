"""ID vectors from callers, checked; statistics of the ID-vector space."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from id3pm.errors import InvalidInputError

Floats = NDArray[np.float64]
SMALLEST_NORM = 1e-6
"""L2 norm below which a vector has no direction to speak of: ID vectors are unit vectors in float32."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Space:
    """Which ID vectors something belongs to: those of another FR model mean nothing to it.

    Attributes:
        id_vector_model: The FR model, as bundles name it, e.g. `sface`.
        identity_dim: Length D of its vectors.
    """

    id_vector_model: str
    identity_dim: int

    def __post_init__(self) -> None:
        if not self.id_vector_model or self.identity_dim < 1:
            raise InvalidInputError(
                f"id_vector_model={self.id_vector_model!r}, identity_dim={self.identity_dim}: need a name and a length"
            )

    def require(self, other: Space, name: str) -> None:
        """Raises `InvalidInputError` if `name` belongs to another space than this one."""
        if self != other:
            raise InvalidInputError(
                f"{name} is for {other.id_vector_model} vectors of {other.identity_dim} numbers, not for "
                f"{self.id_vector_model} vectors of {self.identity_dim}"
            )


def unit(vectors: ArrayLike, dim: int | None = None, name: str = "vector") -> Floats:
    """Vectors [..., D] scaled to L2 norm 1, float64.

    Args:
        vectors: Finite numbers.
        dim: The D that is needed, or `None` for any.
        name: For messages.

    Raises:
        InvalidInputError: Not numbers, not finite, of another length, or zero.
    """
    array = real(vectors, name)
    if array.ndim == 0 or array.shape[-1] == 0:
        raise InvalidInputError(f"{name} has shape {list(array.shape)}: need [D] or [..., D]")
    if dim is not None and array.shape[-1] != dim:
        raise InvalidInputError(f"{name} has {array.shape[-1]} numbers: need {dim}")
    norms = np.linalg.norm(array, axis=-1, keepdims=True)
    if np.any(norms < SMALLEST_NORM):
        raise InvalidInputError(f"{name} is zero, which has no direction: give an ID vector")
    return np.asarray(array / norms)


def real(values: ArrayLike, name: str) -> Floats:
    """Numbers as float64.

    Raises:
        InvalidInputError: Not numbers, or not finite.
    """
    try:
        array: Any = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{name}: expected numbers") from error
    if not np.isfinite(array).all():
        raise InvalidInputError(f"{name} is not finite")
    return np.asarray(array)


def finished(vectors: Floats, problem: str) -> NDArray[np.float32]:
    """Results [..., D] scaled to L2 norm 1, float32.

    Raises:
        InvalidInputError: One is zero; the message is `problem`.
    """
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    if np.any(norms < SMALLEST_NORM):
        raise InvalidInputError(problem)
    return np.asarray(vectors / norms, dtype=np.float32)
