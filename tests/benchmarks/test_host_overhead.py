"""The host's time per step is measured on arrays that compute nothing."""

from __future__ import annotations

import pytest

import host_overhead


def test_every_case_runs_on_the_host_and_on_the_simulated_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_overhead, "STEPS", 5)
    monkeypatch.setattr(host_overhead, "SKIPPED", 1)
    monkeypatch.setattr(host_overhead, "DEVICE_MS", {"base": 20.0, "sr": 20.0})
    lines = host_overhead.measured(rows=1, rounds=1)
    assert [line["stage"] for line in lines] == ["base", "base", "sr", "sr"]
    for line in lines:
        assert 0 < line["use_host_loop"] < 1 and 0 < line["use_device_rows"] <= 1
        assert 0 < line["device_rows_ms"] and 0 < line["loop_ms"]
    text = host_overhead.table(lines, 1)
    assert len(text.splitlines()) == 2 + len(lines)


def test_the_host_waits_for_the_simulated_device() -> None:
    case = host_overhead.CASES[1]
    device = host_overhead.SimulatedDevice(0.03)
    measured = host_overhead.measure(case, 1, device)
    assert measured["step_ms"] >= 29 and device.waited_s > 0.5
