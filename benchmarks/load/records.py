"""What became of the requests of a load test."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """What became of one request.

    Attributes:
        kind: Name of its class.
        at_s: When it was due.
        sent_s: When it left, from the same start.
        end_s: When its end was known.
        outcome: ok, cancelled, refused, unreachable, late, invalid or failed.
        expected: Whether that is what should become of it.
        wrong: It is an image, but not the known one.
        error: What was said, or nothing.
    """

    kind: str
    at_s: float
    sent_s: float
    end_s: float
    outcome: str
    expected: bool
    wrong: bool = False
    error: str = ""

    @property
    def latency_s(self) -> float:
        """Seconds from when it was due to its end."""
        return self.end_s - self.at_s
