"""What the service says about the bundle that it serves: the one place that knows the shape of `client.describe()`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from id3pm_client import AsyncClient


@dataclasses.dataclass(frozen=True)
class Field:
    """One attribute that a request may set.

    Attributes:
        name: Its key in `attributes={...}`.
        group: What the panel shows it under, such as `head pose`.
        low: Least value.
        high: Greatest value.
        unit: Such as `degrees`; may be empty.
        default: Where the slider stands before it is touched; an untouched attribute is not sent.
    """

    name: str
    group: str
    low: float
    high: float
    unit: str = ""
    default: float = 0.0

    @property
    def label(self) -> str:
        """Name and unit, for people."""
        name = self.name.replace("_", " ").capitalize()
        return f"{name} ({self.unit})" if self.unit else name


@dataclasses.dataclass(frozen=True)
class Served:
    """The served bundle.

    Attributes:
        name: The bundle's name, or `None` where the service does not say.
        id_vector_model: The face-recognition model behind its ID vectors, or `None`.
        attributes: What can be set; empty for a bundle without attributes.
    """

    name: str | None = None
    id_vector_model: str | None = None
    attributes: tuple[Field, ...] = ()


async def ask(client: AsyncClient) -> Served:
    """What the service says.

    Raises:
        ClientError: The service does not answer.
    """
    return read(await client.describe())


def read(answer: object) -> Served:
    """An answer of `describe`."""
    fields: Iterable[object] = _get(answer, "attributes") or ()
    return Served(
        name=_text(_get(answer, "bundle")),
        id_vector_model=_text(_get(answer, "id_vector_model")),
        attributes=tuple(_field(field) for field in fields),
    )


def _field(field: object) -> Field:
    low, high = float(_get(field, "low")), float(_get(field, "high"))
    default = _get(field, "default")
    return Field(
        name=str(_get(field, "name")),
        group=str(_get(field, "group") or "Attributes"),
        low=low,
        high=high,
        unit=str(_get(field, "unit") or ""),
        default=min(max(0.0 if default is None else float(default), low), high),
    )


def _get(value: object, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
