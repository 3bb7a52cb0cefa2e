"""What a stage does at each event of its scheduler."""

from __future__ import annotations

from collections.abc import Sequence

from id3pm.errors import Id3pmError
from id3pm.sampling.observer import Observer
from id3pm.sampling.request import Sample
from id3pm.sampling.row import Row as SampledRow
from id3pm.serving.models.long_poll import LongPolls
from id3pm.serving.models.metrics import StageMetrics


class StageObserver(Observer):
    """Passes the scheduler's events to the metrics, and wakes the long polls."""

    def __init__(self, metrics: StageMetrics, long_polls: LongPolls, max_batch: int) -> None:
        self._metrics = metrics
        self._long_polls = long_polls
        self._max_batch = max_batch

    def stepped(self, rows: Sequence[SampledRow], evaluations: int, engine_s: float) -> None:
        """See `Observer.stepped`."""
        self._metrics.evaluated(evaluations, self._max_batch, engine_s)
        for row in rows:
            if row.made == 1:
                self._metrics.first_step(row)
        self._long_polls.changed()

    def ended(self, row: SampledRow, outcome: Sample | Id3pmError) -> None:
        """See `Observer.ended`."""
        self._metrics.row_ended(row, outcome)
