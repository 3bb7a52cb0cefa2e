"""The gateway's metrics, which are appended to Triton's."""

from __future__ import annotations

import collections

from id3pm.serving.launcher.health import Health


class Counters:
    """What the gateway counts; used from its event loop alone."""

    def __init__(self) -> None:
        self.requests: collections.Counter[tuple[str, str]] = collections.Counter()
        self.refused_bodies = 0
        self.disconnects = 0
        self.in_flight = 0
        self.dropped_lines = 0

    def count(self, protocol: str, code: str) -> None:
        """Counts an answered request; `code` is the HTTP status or the name of the gRPC status."""
        self.requests[protocol, code] += 1

    def text(self, health: Health) -> str:
        """Prometheus text."""
        lines = [
            *_head("requests_total", "counter", "Requests answered, or given up by their callers (499, CANCELLED)")
        ]
        for (protocol, code), number in sorted(self.requests.items()):
            lines.append(f'id3pm_gateway_requests_total{{protocol="{protocol}",code="{code}"}} {number}')
        for name, kind, text, value in (
            ("refused_bodies_total", "counter", "Bodies that were larger than allowed", self.refused_bodies),
            ("disconnects_total", "counter", "Requests cancelled because their caller went away", self.disconnects),
            ("in_flight", "gauge", "Requests for work that are not answered yet", self.in_flight),
            ("restarts_total", "counter", "Times that Triton was replaced", health.restarts),
            (
                "dropped_lines_total",
                "counter",
                "Lines of logs that could not be written",
                self.dropped_lines + health.dropped_lines,
            ),
            ("up", "gauge", "1 while Triton is ready and new requests are taken", int(health.ready)),
        ):
            lines += [*_head(name, kind, text), f"id3pm_gateway_{name} {value}"]
        return "\n".join(lines) + "\n"


def _head(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP id3pm_gateway_{name} {text}", f"# TYPE id3pm_gateway_{name} {kind}"
