"""See the package."""

from __future__ import annotations

from typing import Any


class Table:
    """Rows that are not read."""

    def __init__(self, *_: object, **__: Any) -> None:
        pass

    def add_row(self, *_: object) -> None:
        """Nothing."""
