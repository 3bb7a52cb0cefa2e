"""Writes id3pm.json, the Grafana dashboard of a server's `/metrics`, next to this file.

    python deploy/grafana/make_dashboard.py

The panels are a table here because JSON of this kind cannot be read; a test holds them against a running server.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

FILE = Path(__file__).with_name("id3pm.json")
COLUMNS, HEIGHT = 24, 8
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
CHOSEN = '{model=~"$model", instance=~"$instance"}'


class Line(NamedTuple):
    """One query of a panel, and what the legend calls its series."""

    query: str
    legend: str


class Panel(NamedTuple):
    """One chart.

    Attributes:
        title: Above it.
        help: What to look for.
        unit: Grafana's name of the unit.
        lines: Its queries.
        width: Of 24 columns.
    """

    title: str
    help: str
    unit: str
    lines: Sequence[Line]
    width: int = 8


def gauge(name: str, legend: str) -> Line:
    """The value itself, over all servers that are shown."""
    return Line(f"sum by (model) (id3pm_{name}{CHOSEN})", legend)


def rate(name: str, legend: str, *labels: str) -> Line:
    """Growth of a counter a second."""
    by = ", ".join(("model", *labels))
    return Line(f"sum by ({by}) (rate(id3pm_{name}{CHOSEN}[$__rate_interval]))", legend)


def quantiles(name: str) -> list[Line]:
    """p50, p95 and p99 of a histogram."""
    buckets = f"sum by (model, le) (rate(id3pm_{name}_bucket{CHOSEN}[$__rate_interval]))"
    return [
        Line(f"histogram_quantile({quantile / 100}, {buckets})", f"{{{{model}}}} p{quantile}")
        for quantile in (50, 95, 99)
    ]


def mean(name: str) -> Line:
    """Mean of a histogram."""
    total, count = (
        f"sum by (model) (rate(id3pm_{name}_{part}{CHOSEN}[$__rate_interval]))" for part in ("sum", "count")
    )
    return Line(f"{total} / {count}", "{{model}} mean")


def gateway(name: str, legend: str, *labels: str) -> Line:
    """One of the gateway's own numbers: a counter's growth in the time shown, or a gauge's value."""
    chosen = f'id3pm_gateway_{name}{{instance=~"$instance"}}'
    value = f"increase({chosen}[$__rate_interval])" if name.endswith("_total") else chosen
    return Line(f"sum by ({', '.join(('instance', *labels))}) ({value})", legend)


ROWS: dict[str, list[Panel]] = {
    "What callers notice": [
        Panel("Images", "Finished images a second.", "ops", [rate("images_total", "{{model}}")]),
        Panel(
            "Time of an image in a stage",
            "From the arrival of an image at a stage to its last step. An image takes both stages.",
            "s",
            quantiles("image_seconds"),
        ),
        Panel(
            "Time to the first preview",
            "From the arrival of an image to the end of its first step.",
            "s",
            quantiles("first_preview_seconds"),
        ),
        Panel(
            "How requests ended",
            "rejected and expired: too much work for this server. failed: look into the log.",
            "ops",
            [rate("requests_total", "{{model}} {{outcome}}", "outcome")],
            width=12,
        ),
        Panel(
            "Errors by code",
            "Requests answered with an error, by Triton's code.",
            "ops",
            [rate("errors_total", "{{model}} {{code}}", "code")],
            width=12,
        ),
    ],
    "Queue": [
        Panel(
            "Images in a stage",
            "active: in the current step. waiting: for their first. paused: have begun and let others go first.",
            "short",
            [
                gauge("active_rows", "{{model}} active"),
                gauge("waiting_rows", "{{model}} waiting"),
                gauge("paused_rows", "{{model}} paused"),
            ],
        ),
        Panel("Backlog", "Seconds of work in flight, by the cost model.", "s", [gauge("backlog_seconds", "{{model}}")]),
        Panel("Waiting time", "From the arrival of an image to its first step.", "s", quantiles("queue_seconds")),
    ],
    "Engine": [
        Panel(
            "Time of a step", "One batched call of the U-Net.", "s", [*quantiles("step_seconds"), mean("step_seconds")]
        ),
        Panel(
            "Batch occupancy",
            "Rows of a call, of those it can take. Low under load: requests do not meet.",
            "percentunit",
            [mean("batch_occupancy")],
        ),
        Panel(
            "Rows and steps",
            "Rows that the U-Net evaluates (guided steps take two), and steps of finished images.",
            "ops",
            [rate("engine_rows_total", "{{model}} rows"), rate("steps_total", "{{model}} steps")],
        ),
        Panel(
            "Steps saved",
            "Not made because a request was cancelled or too late.",
            "ops",
            [rate("steps_saved_total", "{{model}}")],
            width=12,
        ),
        Panel(
            "Requests joined",
            "Sent again while their first sending was in flight, or just after: answered without being computed again.",
            "ops",
            [rate("joined_total", "{{model}} {{to}}", "to")],
            width=12,
        ),
    ],
    "Faces": [
        Panel(
            "Photographs",
            "ID vectors found a second, and photographs refused by reason: the picture cannot be decoded, or shows no "
            "face that can be used.",
            "ops",
            [rate("photos_total", "found"), rate("photos_refused_total", "{{reason}}", "reason")],
            width=6,
        ),
        Panel(
            "Time of a photograph",
            "Decoding, detection and face recognition.",
            "s",
            quantiles("photo_seconds"),
            width=6,
        ),
        Panel(
            "Waiting time of photographs",
            "From the arrival of a request to the turn of its first photograph.",
            "s",
            quantiles("photo_queue_seconds"),
            width=6,
        ),
        Panel(
            "Photographs in the stage",
            "Taken and not answered, with the one at work.",
            "short",
            [gauge("waiting_photos", "{{model}}")],
            width=6,
        ),
    ],
    "Gateway": [
        Panel("Ready", "1 while new requests are taken.", "short", [gateway("up", "{{instance}}")], width=6),
        Panel(
            "Triton replaced",
            "By the supervisor: a process died, hung or failed a probe.",
            "short",
            [gateway("restarts_total", "{{instance}}")],
            width=6,
        ),
        Panel(
            "Requests in flight",
            "Taken and not answered yet.",
            "short",
            [gateway("in_flight", "{{instance}}")],
            width=6,
        ),
        Panel(
            "Turned away, given up",
            "Bodies that were too large, and requests whose caller went away.",
            "short",
            [
                gateway("refused_bodies_total", "{{instance}} too large"),
                gateway("disconnects_total", "{{instance}} caller gone"),
            ],
            width=6,
        ),
        Panel(
            "Answers by code",
            "HTTP status, or name of the gRPC status.",
            "short",
            [gateway("requests_total", "{{protocol}} {{code}}", "protocol", "code")],
            width=24,
        ),
    ],
}


def dashboard() -> dict[str, Any]:
    """The whole dashboard as Grafana 10 and newer import it."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row, charts in ROWS.items():
        panels.append(
            {
                "id": len(panels) + 1,
                "type": "row",
                "title": row,
                "collapsed": False,
                "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
                "panels": [],
            }
        )
        y, x = y + 1, 0
        for chart in charts:
            if x + chart.width > COLUMNS:
                x, y = 0, y + HEIGHT
            place = {"x": x, "y": y, "w": chart.width, "h": HEIGHT}
            panels.append({"id": len(panels) + 1, **_panel(chart), "gridPos": place})
            x += chart.width
        y += HEIGHT
    return {
        "uid": "id3pm",
        "title": "ID3PM on Triton",
        "description": "Written by deploy/grafana/make_dashboard.py: change it there.",
        "tags": ["id3pm", "triton"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "links": [],
        "templating": {"list": [_datasource(), _choice("instance", "Server"), _choice("model", "Stage")]},
        "panels": panels,
    }


def _panel(chart: Panel) -> dict[str, Any]:
    return {
        "type": "timeseries",
        "title": chart.title,
        "description": chart.help,
        "datasource": DATASOURCE,
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": DATASOURCE,
                "editorMode": "code",
                "expr": line.query,
                "legendFormat": line.legend,
                "range": True,
            }
            for number, line in enumerate(chart.lines)
        ],
        "fieldConfig": {
            "defaults": {
                "unit": chart.unit,
                "min": 0,
                "color": {"mode": "palette-classic"},
                "custom": {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 10, "showPoints": "never"},
            },
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }


def _datasource() -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "hide": 0,
        "includeAll": False,
        "multi": False,
        "refresh": 1,
        "regex": "",
        "current": {},
        "options": [],
    }


def _choice(label: str, title: str) -> dict[str, Any]:
    """A variable with the values that a label of the metrics has."""
    query = f"label_values(id3pm_requests_total, {label})"
    return {
        "name": label,
        "label": title,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": "A"},
        "hide": 0,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "refresh": 2,
        "sort": 1,
        "regex": "",
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        "options": [],
    }


def text() -> str:
    """What the file holds."""
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
