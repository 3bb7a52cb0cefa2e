"""The Grafana dashboard is what its table says, and one that Grafana can draw."""

from __future__ import annotations

import importlib.util
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from grafana_foundation_sdk.models.dashboard import Dashboard

FOLDER = Path(__file__).parents[2] / "deploy" / "grafana"


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_dashboard", FOLDER / "make_dashboard.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    return json.loads((FOLDER / "id3pm.json").read_text())


def test_the_file_is_what_the_script_writes() -> None:
    assert (FOLDER / "id3pm.json").read_text() == script().text(), "run python deploy/grafana/make_dashboard.py"


def test_panels_have_ids_of_their_own_and_do_not_overlap(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 15
    for panel in panels:
        place = panel["gridPos"]
        assert 0 <= place["x"] and place["x"] + place["w"] <= 24
    for one, other in itertools.combinations([panel["gridPos"] for panel in panels], 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below


def test_every_query_uses_the_chosen_data_source_and_servers(dashboard: dict[str, Any]) -> None:
    names = {variable["name"] for variable in dashboard["templating"]["list"]}
    charts = [panel for panel in dashboard["panels"] if panel["type"] == "timeseries"]
    for panel in charts:
        assert panel["targets"] and panel["description"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        for target in panel["targets"]:
            query = target["expr"]
            assert target["datasource"]["uid"] == "${datasource}"
            assert 'instance=~"$instance"' in query
            assert query.count("(") == query.count(")") and query.count("{") == query.count("}")
            used = set(re.findall(r"\$(?:\{)?(\w+)", query + target["datasource"]["uid"])) - {"__rate_interval"}
            assert used <= names
            labels = re.search(r"sum by \(([^)]*)\)", query)
            assert labels is not None
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= set(labels[1].split(", "))


def test_histograms_keep_their_buckets_apart(dashboard: dict[str, Any]) -> None:
    queries = [t["expr"] for panel in dashboard["panels"] for t in panel.get("targets", []) if "quantile" in t["expr"]]
    assert len(queries) == 18
    assert all("_bucket{" in query and "by (model, le)" in query for query in queries)


def test_grafanas_own_model_reads_it_and_leaves_nothing_out(dashboard: dict[str, Any]) -> None:
    read = json.loads(json.dumps(Dashboard.from_json(dashboard), default=lambda part: part.to_json()))
    assert list(_missing(dashboard, read)) == []


def _missing(written: Any, read: Any, where: str = "") -> Iterator[str]:
    """Places where what was read is not what was written; what Grafana's model adds are defaults."""
    if isinstance(written, dict) and isinstance(read, dict):
        for key, value in written.items():
            yield from _missing(value, read.get(key), f"{where}/{key}")
    elif isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        for number, pair in enumerate(zip(written, read, strict=True)):
            yield from _missing(*pair, f"{where}/{number}")
    elif written != read:
        yield where
