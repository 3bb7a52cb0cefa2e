"""The served bundle: reads `client.describe()`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from id3pm_client import AsyncClient

_COMMON = {"age": 30.0}
"""Start values of sliders for fields without a default whose middle value is rare."""


@dataclasses.dataclass(frozen=True)
class Field:
    """One attribute that a request may set.

    Attributes:
        name: Its key in `attributes={...}`.
        group: Its heading in the panel, such as `head pose`.
        low: Least value.
        high: Greatest value.
        unit: Such as `degrees`; may be empty.
        start: Start value of the slider: the default, if there is one.
        free: It is unspecified if left out, whatever else is requested; else it takes its default.
        needed: If any attribute is requested, at least one field of its group must be.
    """

    name: str
    group: str
    low: float
    high: float
    unit: str = ""
    start: float = 0.0
    free: bool = False
    needed: bool = False

    @property
    def label(self) -> str:
        """Name and unit, for people."""
        name = self.name.replace("_", " ").capitalize()
        return f"{name} ({self.unit})" if self.unit else name

    def within(self, value: float) -> float:
        """The value of the field's range that is nearest."""
        return min(max(value, self.low), self.high)


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

    @property
    def groups(self) -> dict[str, list[Field]]:
        """The attributes by group, in the order in which the groups begin."""
        groups: dict[str, list[Field]] = {}
        for field in self.attributes:
            groups.setdefault(field.group, []).append(field)
        return groups

    @property
    def free(self) -> bool:
        """Whether attributes may be left free one by one."""
        return any(field.free for field in self.attributes)

    def requested(self, chosen: Mapping[str, float]) -> dict[str, float]:
        """Attributes of a request: the chosen ones, and those that the service then needs, by their sliders.

        Args:
            chosen: Attribute to value, for those that were touched; those of another bundle are left out.

        Returns:
            Attribute to value; empty where nothing is chosen.
        """
        requested = {field.name: chosen[field.name] for field in self.attributes if field.name in chosen}
        if requested:
            for fields in self.groups.values():
                if not any(field.name in chosen for field in fields):
                    requested |= {field.name: field.start for field in fields if field.needed}
        return requested


async def ask(client: AsyncClient) -> Served:
    """Asks the service.

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
    name, low, high = str(_get(field, "name")), float(_get(field, "low")), float(_get(field, "high"))
    default = _get(field, "default")
    return Field(
        name=name,
        group=str(_get(field, "group") or "Attributes"),
        low=low,
        high=high,
        unit=str(_get(field, "unit") or ""),
        start=_COMMON.get(name, (low + high) / 2) if default is None else float(default),
        free=bool(_get(field, "free")),
        needed=bool(_get(field, "needed")),
    )


def _get(value: object, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
