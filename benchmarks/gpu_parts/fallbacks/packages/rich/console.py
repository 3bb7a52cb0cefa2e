"""See the package."""

from __future__ import annotations

from typing import Any


class Console:
    """Takes texts and tables, and shows none: results of `gpu.py` are in its own files."""

    def __init__(self, **_: Any) -> None:
        pass

    def print(self, *_: object, **__: object) -> None:
        """Nothing."""

    def status(self, text: str) -> Console:
        """Itself, as a spinner."""
        return self

    update = print

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_: object) -> None:
        pass
