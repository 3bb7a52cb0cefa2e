"""Error for a folder that belongs to another data set."""

from __future__ import annotations

from id3pm.errors import InvalidInputError


class OtherDatasetError(InvalidInputError):
    """The folder's images are made by another plan, bundle or engine; running again does not help."""
