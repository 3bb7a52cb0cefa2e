"""Requests sent to a system in this process when they are due, and what became of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np

from gpu_parts.both_stages import Job, System
from load.arrivals import Arrival
from load.records import Record

LONGEST_S = 600.0


def send(system: System, arrivals: Sequence[Arrival], vectors: np.ndarray) -> list[Record]:
    """Sends each request when it is due, however many are in flight; waits for the last end.

    Latency counts from when a request was due.

    Raises:
        RuntimeError: A request was not answered within `LONGEST_S`.
    """
    records: list[Record] = []
    left = threading.Semaphore(0)
    start = time.monotonic()

    def end(arrival: Arrival, sent_s: float, outcome: object) -> None:
        ended_s, fine = time.monotonic() - start, isinstance(outcome, np.ndarray)
        records.append(
            Record(
                kind=arrival.kind.name,
                at_s=arrival.at_s,
                sent_s=sent_s,
                end_s=ended_s,
                outcome="ok" if fine else "failed",
                expected=fine,
                error="" if fine else str(outcome),
            )
        )
        left.release()

    for arrival in arrivals:
        time.sleep(max(start + arrival.at_s - time.monotonic(), 0.0))
        sent_s = time.monotonic() - start
        job = Job(vectors[arrival.identity], arrival.seed, arrival.kind.options["steps"])
        system.submit(job, lambda outcome, arrival=arrival, sent_s=sent_s: end(arrival, sent_s, outcome))  # type: ignore[misc]
    for _ in arrivals:
        if not left.acquire(timeout=LONGEST_S):
            raise RuntimeError(f"a request was not answered within {LONGEST_S:g} s")
    return records


def images_per_s(records: Sequence[Record]) -> float:
    """Images over the seconds from the first due time to the last end.

    Raises:
        RuntimeError: A request did not become an image; the first error.
    """
    if failed := [record for record in records if not record.expected]:
        raise RuntimeError(f"{len(failed)} of {len(records)} requests failed: {failed[0].error}")
    return len(records) / (max(record.end_s for record in records) - min(record.at_s for record in records))
