"""Summary of the records of a run, per class of requests and in all."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Any

import numpy as np

from load.records import Record
from report import table

PERCENTILES = (50, 95, 99)
ALL = "all"


def summarise(records: Sequence[Record]) -> dict[str, Any]:
    """JSON-ready: per class and for `all`, outcomes, percentiles of the latency of images, throughput.

    Throughput is images over the seconds from the first due time to the last end.
    """
    span = max((record.end_s for record in records), default=0.0) - min((r.at_s for r in records), default=0.0)
    kinds = sorted({record.kind for record in records})
    groups = {kind: [record for record in records if record.kind == kind] for kind in kinds} | {ALL: list(records)}
    return {
        "seconds": span,
        "sent_late_s": max((record.sent_s - record.at_s for record in records), default=0.0),
        "kinds": {kind: _group(group, span) for kind, group in groups.items()},
    }


def _group(records: Sequence[Record], span: float) -> dict[str, Any]:
    latencies = [record.latency_s for record in records if record.outcome == "ok"]
    outcomes = collections.Counter(record.outcome for record in records)
    return {
        "requests": len(records),
        "images": len(latencies),
        "images_per_s": len(latencies) / span if span else 0.0,
        "outcomes": dict(sorted(outcomes.items())),
        "unexpected": sum(not record.expected for record in records),
        "wrong": sum(record.wrong for record in records),
        **percentiles(latencies),
    }


def percentiles(seconds: Sequence[float]) -> dict[str, float | None]:
    """p50, p95 and p99, `None` where there is nothing."""
    values = np.percentile(seconds, PERCENTILES) if len(seconds) else [None] * len(PERCENTILES)
    return {f"p{p}_s": None if value is None else float(value) for p, value in zip(PERCENTILES, values, strict=True)}


def markdown(summary: dict[str, Any]) -> list[str]:
    """The table of a summary."""
    header = ["requests", "sent", "images", "images/s", "p50, s", "p95, s", "p99, s", "cancelled", "refused", "wrong"]
    rows = [
        [
            kind,
            str(group["requests"]),
            str(group["images"]),
            f"{group['images_per_s']:.3g}",
            *(seconds(group[f"p{p}_s"]) for p in PERCENTILES),
            str(group["outcomes"].get("cancelled", 0)),
            str(group["outcomes"].get("refused", 0)),
            str(group["wrong"]),
        ]
        for kind, group in summary["kinds"].items()
    ]
    return table(header, rows)


def seconds(value: float | None) -> str:
    """For a table."""
    return "" if value is None else f"{value:.2f}"
