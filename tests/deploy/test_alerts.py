"""The alerts and KEDA's query, run by Prometheus' own test tool on made-up series."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from helm import CHART, Render
from objects import everything, of_kind

ROOT = CHART.parents[1]
TESTS = Path(__file__).parent / "alerts.yaml"


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool") or shutil.which("promtool", path=str(ROOT / "build"))
    if found is None and "ID3PM_REQUIRE_PROMTOOL" not in os.environ:
        pytest.skip("there is no promtool: it comes with Debian's package prometheus; .ci/run unpacks it into build/")
    assert found is not None
    return found


def run(promtool: str, folder: Path, rules: dict, tests: str) -> subprocess.CompletedProcess[str]:
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
    (folder / "tests.yaml").write_text(tests)
    command = [promtool, "test", "rules", "tests.yaml"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def rules_of(objects: list[dict]) -> dict:
    (found,) = of_kind(objects, "PrometheusRule").values()
    return found["spec"]


def test_alerts_fire_when_they_should_and_only_then(rendered: Render, promtool: str, tmp_path: Path) -> None:
    rules = rules_of(rendered("gpu"))
    done = run(promtool, tmp_path, rules, TESTS.read_text())
    assert done.returncode == 0, done.stdout + done.stderr
    changed = yaml.safe_dump(rules)
    for old, new in (("for: 5m", "for: 1m"), ("> 0.01", "> 0.5"), ("> 60", "> 70"), ("0.95", "0.5"), ("== 0", "== 2")):
        assert old in changed
        changed = changed.replace(old, new)
    done = run(promtool, tmp_path, yaml.safe_load(changed), TESTS.read_text())
    for alert in ("PodNotReady", "ImagesFail", "Backlog", "QueueIsSlow", "NoPodReady"):
        assert f"Id3pm{alert}" in done.stdout + done.stderr


def test_every_alert_is_tested_with_and_without_cause(rendered: Render) -> None:
    tests = [test for group in yaml.safe_load(TESTS.read_text())["tests"] for test in group["alert_rule_test"]]
    alerts = {rule["alert"] for group in rules_of(rendered("gpu"))["groups"] for rule in group["rules"]}
    assert {test["alertname"] for test in tests if test.get("exp_alerts")} == alerts
    assert {test["alertname"] for test in tests if not test.get("exp_alerts")} == alerts


def test_the_query_that_is_tested_is_what_keda_asks(rendered: Render) -> None:
    tested = yaml.safe_load(TESTS.read_text())["tests"][0]["promql_expr_test"][0]
    trigger = of_kind(rendered("gpu"), "ScaledObject")["rel-id3pm-h100"]["spec"]["triggers"][0]
    assert trigger["metadata"]["query"] == tested["expr"]
    assert trigger["metricType"] == "AverageValue"
    assert trigger["metadata"]["threshold"] == "20"


def test_metrics_of_alerts_are_those_of_the_dashboard(rendered: Render) -> None:
    """tests/integration compares the dashboard with a running server."""
    dashboard = json.loads((ROOT / "deploy" / "grafana" / "id3pm.json").read_text())
    shown = set(
        re.findall(r"\bid3pm_\w+", " ".join(str(value) for key, value in everything(dashboard) if key == "expr"))
    )
    used = set(
        re.findall(
            r"\bid3pm_\w+",
            " ".join(rule["expr"] for group in rules_of(rendered("gpu"))["groups"] for rule in group["rules"]),
        )
    )
    assert used and used <= shown, used - shown


def test_prometheus_finds_the_pods_that_alerts_are_about(rendered: Render) -> None:
    objects = rendered("gpu")
    (monitor,) = of_kind(objects, "ServiceMonitor").values()
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    scraped = {
        name for name, found in of_kind(objects, "Service").items() if wanted <= found["metadata"]["labels"].items()
    }
    text = yaml.safe_dump(rules_of(objects)) + str(of_kind(objects, "ScaledObject"))
    assert scraped == set(re.findall(r'service="([^"]+)"', text))
    (endpoint,) = monitor["spec"]["endpoints"]
    for name in scraped:
        assert endpoint["port"] in {port["name"] for port in of_kind(objects, "Service")[name]["spec"]["ports"]}
