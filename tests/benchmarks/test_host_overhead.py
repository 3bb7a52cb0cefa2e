"""The host's time per step is measured on arrays that compute nothing."""

from __future__ import annotations

import time

import pytest

import host_overhead
from id3pm.sampling import noise_ahead


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


def test_what_noise_needs_is_measured_and_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_overhead, "DEVICE_MS", {"base": 100.0, "sr": 100.0})
    base, sr = lines = host_overhead.noise_lines(rows=2, rounds=1)
    assert sr["numbers"] == 16 * base["numbers"] == 2 * 3 * 256 * 256
    for line in lines:
        assert line["core_ms"] > 0 and line["two_threads_ratio"] > 0
        assert line["cores"] == pytest.approx(line["core_ms"] / 100.0)
        assert line["faster_device"] == pytest.approx(100.0 / line["with_4_cores_ms"])
    assert sr["core_ms"] > 4 * base["core_ms"]
    assert len(host_overhead.noise_table(lines).splitlines()) == 4


def test_a_step_that_waits_for_noise_is_told_from_one_that_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_overhead, "STEPS", 4)
    monkeypatch.setattr(host_overhead, "SKIPPED", 1)
    measured = host_overhead.measure(host_overhead.CASES[0], 1, host_overhead.SimulatedDevice(0.02))
    draw = noise_ahead.NoiseAhead._outcome
    slow = lambda self, row, number: (time.sleep(0.1), draw(self, row, number))[1]  # noqa: E731
    monkeypatch.setattr(noise_ahead.NoiseAhead, "_outcome", slow)
    waiting = host_overhead.measure(host_overhead.CASES[0], 8, host_overhead.SimulatedDevice(0.001))
    assert waiting["noise_wait_ms"] > 50 > measured["noise_wait_ms"]
