"""The observer of a step scheduler, for metrics and progress."""

from __future__ import annotations

from collections.abc import Sequence

from id3pm.errors import Id3pmError
from id3pm.sampling.request import Sample
from id3pm.sampling.row import Row


class Observer:
    """Does nothing; a server overrides the methods that it needs. Sampling waits for these methods."""

    def stepped(self, rows: Sequence[Row]) -> None:
        """These rows have made a step; called from the scheduler's thread, after every step."""

    def ended(self, row: Row, outcome: Sample | Id3pmError) -> None:
        """A row is about to get its answer; called from any thread, once per row."""
