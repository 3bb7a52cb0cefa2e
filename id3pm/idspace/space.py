"""Which ID vectors axes and directions belong to, and the descriptions of their files."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TypeVar

from id3pm.config import from_json
from id3pm.errors import InvalidInputError

T = TypeVar("T")


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


def described(cls: type[T], raw: Mapping[str, object], name: str, version: int) -> T:
    """The description of a file as its class; unknown keys and other versions are errors.

    Raises:
        InvalidInputError: See above; the message names the file.
    """
    if raw.get("schema_version") != version:
        raise InvalidInputError(
            f"{name} has schema_version={raw.get('schema_version')!r}: this version reads {version}"
        )
    try:
        return from_json(cls, raw)
    except ValueError as error:
        raise InvalidInputError(f"{name}: {error}") from error  # ConfigError, or of a rule of the class
