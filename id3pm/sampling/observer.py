"""The observer of a step scheduler, for metrics and progress."""

from __future__ import annotations

from collections.abc import Sequence

from id3pm.errors import Id3pmError
from id3pm.sampling.request import Sample
from id3pm.sampling.row import Row


class Observer:
    """Does nothing; a server overrides the methods that it needs. Sampling waits for these methods."""

    def stepped(self, rows: Sequence[Row], evaluations: int, engine_s: float) -> None:
        """A step has been made; called from the scheduler's thread, after every step.

        Args:
            rows: Its rows.
            evaluations: Rows that the U-Net evaluated.
            engine_s: Seconds that this took, by the clock of whoever computed: on a GPU between two of its events.
        """

    def ended(self, row: Row, outcome: Sample | Id3pmError) -> None:
        """A row is about to get its answer; called from any thread, once per row."""
