"""Sends every query of id3pm.json to a Prometheus; reports invalid queries and empty panels.

    python deploy/grafana/check_dashboard.py http://localhost:9090

Use it to find the cause of empty panels. A panel of events that have not happened, such as errors, is empty on a
healthy server.
The exit status is 1 where a query is refused.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("id3pm.json")
VARIABLES = {"$model": ".*", "$instance": ".*", "$__rate_interval": "1m"}
TIMEOUT_S = 10.0


def expanded(query: str) -> str:
    """A query of the dashboard as Grafana sends it where all models and servers are chosen."""
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    return query


def series(prometheus: str, query: str) -> int:
    """How many series a query finds now.

    Raises:
        ValueError: Prometheus refuses the query; with its reason.
        OSError: It cannot be reached.
    """
    url = f"{prometheus.rstrip('/')}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with _opener(url).open(url, timeout=TIMEOUT_S) as response:
            answer: dict[str, Any] = json.load(response)
    except urllib.error.HTTPError as error:
        raise ValueError(json.load(error).get("error", str(error))) from error
    return len(answer["data"]["result"])


def _opener(url: str) -> urllib.request.OpenerDirector:
    """Past the proxies of the environment where Prometheus is on this machine."""
    here = urllib.parse.urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")
    return urllib.request.build_opener(urllib.request.ProxyHandler({} if here else None))


def main(prometheus: str) -> int:
    """Writes a line per query."""
    status = 0
    for panel in json.loads(FILE.read_text())["panels"]:
        for target in panel.get("targets", []):
            query = expanded(target["expr"])
            try:
                found = f"{series(prometheus, query)} series"
            except ValueError as error:
                found, status = f"REFUSED: {error}", 1
            sys.stdout.write(f"{panel['title']} {target['refId']}: {found}\n")
    return status


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    raise SystemExit(main(sys.argv[1]))
