"""The load tests measure what they say: arrivals, latencies, verdicts. No server here."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from id3pm_client import ClientError, ConnectionFailedError, InvalidRequestError, OverloadedError
from load import compare, generator, soak, summary
from load.arrivals import FRESH_SEEDS, Arrival, Kind, burst, gaps_us, poisson
from load.generator import Generator, digest, drive
from load.records import Record

SHORT = Kind(name="10 steps", options={"steps": 10})
LONG = Kind(name="50 steps", options={"steps": 50})
BAD = Kind(name="bad", options={"steps": 0}, valid=False)


def made(seed: int) -> SimpleNamespace:
    image = np.full((4, 4, 3), seed % 256, dtype=np.uint8)
    return SimpleNamespace(image=image, image_64=image)


class MadeUpServer:
    """Answers one request after the other, each in the same time; bad options and chosen seeds get an error."""

    def __init__(self, seconds: float, errors: Mapping[int, ClientError] | None = None) -> None:
        self.seconds, self.errors = seconds, dict(errors or {})
        self.cancelled: list[int] = []

    def __call__(self, url: str, **settings: Any) -> MadeUpServer:
        self.settings = settings
        self.turn = asyncio.Lock()
        return self

    async def __aenter__(self) -> MadeUpServer:
        return self

    async def __aexit__(self, *exception: object) -> None:
        return None

    async def generate(self, vector: np.ndarray, seed: int, **options: Any) -> SimpleNamespace:
        if not options["steps"]:
            raise InvalidRequestError("steps=0")
        try:
            async with self.turn:
                await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled.append(seed)
            raise
        if seed in self.errors:
            raise self.errors[seed]
        return made(seed)


def run(
    server: MadeUpServer,
    arrivals: list[Arrival],
    monkeypatch: pytest.MonkeyPatch,
    known: Mapping[tuple[str, int], str] | None = None,
) -> list[Record]:
    monkeypatch.setattr(generator, "AsyncClient", server)
    return sorted(drive(Generator("nowhere:1", np.zeros((4, 8), np.float32), known), arrivals), key=lambda r: r.at_s)


def arrivals_at(*times: float, kind: Kind = SHORT, **changes: Any) -> list[Arrival]:
    return [Arrival(at_s=at, kind=kind, identity=0, seed=i, **changes) for i, at in enumerate(times)]


def test_arrivals_are_a_function_of_the_seed_and_come_at_the_rate() -> None:
    kinds = [SHORT, dataclasses.replace(LONG, share=3.0)]
    some = poisson(kinds, 5.0, 2000, seed=1, identities=4)
    assert some == poisson(kinds, 5.0, 2000, seed=1, identities=4) != poisson(kinds, 5.0, 2000, seed=2, identities=4)
    assert some[-1].at_s == pytest.approx(400, rel=0.1)
    assert sum(arrival.kind is kinds[1] for arrival in some) == pytest.approx(1500, rel=0.1)
    assert len({arrival.seed for arrival in some}) == 2000
    gaps = np.diff([arrival.at_s for arrival in some])
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.1)  # exponential


def test_cancellations_change_nothing_else_about_the_arrivals() -> None:
    calm, hasty = (poisson([SHORT, LONG], 2.0, 200, seed=3, identities=4, cancelled=share) for share in (0.0, 0.5))
    assert [dataclasses.replace(arrival, cancel_after_s=None) for arrival in hasty] == calm
    assert sum(arrival.cancel_after_s is not None for arrival in hasty) == pytest.approx(100, abs=25)


def test_known_images_are_asked_for_with_their_own_seed_and_identity() -> None:
    arrivals = poisson([SHORT, BAD], 1.0, 300, seed=0, identities=3, known=0.5, known_seeds=5)
    known = [arrival for arrival in arrivals if arrival.known]
    assert 40 < len(known) < 110 and {arrival.kind.name for arrival in known} == {"10 steps"}
    assert all(arrival.identity == arrival.seed % 3 and arrival.seed < 5 for arrival in known)
    assert all(arrival.seed >= FRESH_SEEDS for arrival in arrivals if not arrival.known)


def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rate=0, count=1, .*: rate and patience must be positive"):
        poisson([SHORT], 0, 1, seed=0, identities=1)


def test_perf_analyzer_gets_arrivals_at_exactly_the_rate() -> None:
    gaps = gaps_us(4.0, 50, seed=0)
    assert sum(gaps) == pytest.approx(50 / 4.0 * 1e6, rel=1e-4) and gaps != gaps_us(4.0, 50, seed=1)


def test_latency_counts_from_the_due_time_while_a_server_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    records = run(MadeUpServer(0.1), arrivals_at(0.0, 0.01, 0.02), monkeypatch)
    latencies = [record.latency_s for record in records]
    assert latencies == pytest.approx([0.1, 0.19, 0.28], abs=0.05)
    # All left when they were due: none waited in the generator for another's answer.
    assert max(record.sent_s - record.at_s for record in records) < 0.05


def test_a_late_sender_makes_latencies_worse_not_better() -> None:
    record = Record(kind="k", at_s=1.0, sent_s=3.0, end_s=4.0, outcome="ok", expected=True)
    assert record.latency_s == 3.0
    assert summary.summarise([record])["sent_late_s"] == 2.0


def test_every_end_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = {0: OverloadedError("full"), 1: ConnectionFailedError("gone"), 2: ClientError("odd")}
    arrivals = arrivals_at(0.0, 0.001, 0.002, 0.003) + arrivals_at(0.004, kind=BAD)
    server = MadeUpServer(0.01, errors)
    records = run(server, arrivals, monkeypatch)
    assert [record.outcome for record in records] == ["refused", "unreachable", "failed", "ok", "invalid"]
    assert [record.expected for record in records] == [False, False, False, True, True]
    assert server.settings["max_in_flight"] > len(arrivals) and server.settings["retry"].limit == 0


def test_a_caller_who_gives_up_is_counted_as_cancelled_and_stops_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    server = MadeUpServer(0.2)
    (record,) = run(server, arrivals_at(0.0, cancel_after_s=0.05), monkeypatch)
    assert record.outcome == "cancelled" and record.expected and server.cancelled == [0]
    assert 0.04 < record.latency_s < 0.15


def test_an_image_with_other_bits_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    right, other = (digest(made(seed).image, made(seed).image_64) for seed in (0, 9))
    known = {("10 steps", 0): right, ("10 steps", 1): other}
    records = run(MadeUpServer(0.01), arrivals_at(0.0, 0.001, known=True), monkeypatch, known)
    assert [record.wrong for record in records] == [False, True]
    assert summary.summarise(records)["kinds"]["all"]["wrong"] == 1


def test_a_summary_has_percentiles_of_images_alone() -> None:
    records = [
        Record(kind="a", at_s=0.0, sent_s=0.0, end_s=float(i), outcome="ok", expected=True) for i in range(1, 101)
    ]
    records.append(Record(kind="b", at_s=0.0, sent_s=0.0, end_s=0.1, outcome="refused", expected=False))
    kinds = summary.summarise(records)["kinds"]
    assert kinds["a"]["p50_s"] == 50.5 and kinds["a"]["p95_s"] == pytest.approx(95.05)
    assert kinds["a"]["images_per_s"] == 1.0 and kinds["all"]["unexpected"] == 1
    assert kinds["b"]["p50_s"] is None and kinds["b"]["outcomes"] == {"refused": 1}
    assert "| b | 1 | 0 | 0 |  |  |  | 0 | 1 | 0 |" in summary.markdown(summary.summarise(records))


def test_growth_is_told_from_noise() -> None:
    random = np.random.default_rng(0)
    times = np.linspace(0, 1800, 600)
    noise = random.standard_normal(600)
    flat = soak.fit_second_half(times, 300 + noise)
    assert abs(flat.slope_mb_per_h) < flat.plus_minus < 5 and flat.verdict(20) == "flat"
    growing = soak.fit_second_half(times, 300 + noise + times / 3600 * 100)
    assert growing.slope_mb_per_h == pytest.approx(100, abs=growing.plus_minus)
    assert growing.verdict(20) == "growing" and growing.verdict(growing.slope_mb_per_h) == "undecided"


def test_the_worst_verdict_counts() -> None:
    assert soak.worst(["flat", "flat"]) == "flat" and soak.worst(["undecided", "flat"]) == "undecided"
    assert soak.worst(["undecided", "growing"]) == "growing"


def test_only_the_second_half_is_judged() -> None:
    times = np.linspace(0, 1800, 600)
    warming = np.minimum(times, 800.0)
    assert soak.fit_second_half(times, warming).slope_mb_per_h == pytest.approx(0, abs=1e-6)


def test_too_short_a_soak_is_no_proof() -> None:
    with pytest.raises(ValueError, match="10 samples in the second half: at least 20 are needed"):
        soak.fit_second_half(range(20), range(20))


def compared(
    ours: list[float],
    baseline: list[float],
    throughput: tuple[float, float],
    wrong: int = 0,
    capacities: Sequence[float] = (0.8, 0.96, 2.0),
) -> Any:
    def system(latencies: list[float], images_per_s: float) -> dict[str, Any]:
        group = {"images_per_s": images_per_s, "wrong": wrong, "unexpected": 0}
        return {"runs": [{"kinds": {"all": group}}], "latencies_s": {"10 steps": latencies}}

    systems = {
        compare.OURS: system(ours, throughput[0]),
        compare.BASELINE: system(baseline, throughput[1]),
    }
    floods = {compare.OURS: list(capacities), compare.BASELINE: [1.0] * len(capacities)}
    medians = {name: float(np.median(found)) for name, found in floods.items()}
    results = {
        "kinds": ["10 steps"],
        "requests": 20,
        "load": 0.7,
        "rate": 1.0,
        "seeds": [0],
        "systems": systems,
        "capacity_images_per_s": medians,
        "capacity_rounds": floods,
        "idle_share": {compare.OURS: 0.1, compare.BASELINE: 0.2},
    }
    judged = compare.verdicts(results)
    return judged | {"missed in the table": "\n".join(compare.markdown(results)).count("| **missed** |")}


def test_the_comparison_needs_both_a_short_tail_and_the_throughput() -> None:
    assert compared([1.0] * 20, [2.0] * 20, (1.0, 1.0))["met"]
    assert not compared([1.1] * 20, [2.0] * 20, (1.0, 1.0))["met"]
    assert compared([1.0] * 20, [2.0] * 20, (0.991, 1.0))["met"]
    assert not compared([1.0] * 20, [2.0] * 20, (0.98, 1.0))["met"]
    assert not compared([1.0] * 20, [2.0] * 20, (1.0, 1.0), capacities=(0.9, 0.94, 2.0))["met"]
    assert not compared([1.0] * 20, [2.0] * 20, (1.0, 1.0), wrong=1)["met"]
    assert not compared([], [2.0] * 20, (1.0, 1.0))["met"]
    judged = compared([1.0] * 20, [2.0] * 20, (0.5, 1.0))
    assert judged["short_tail"] and judged["no_less_capacity"] and not judged["no_less_throughput"]
    assert judged["missed in the table"] == 1
    assert judged["throughput_ratios"] == [judged["throughput_ratio"]] == [0.5]
    assert judged["capacity_ratio"] == 0.96 and judged["capacity_ratios"] == [0.8, 0.96, 2.0]


def test_a_burst_comes_all_at_once() -> None:
    assert {arrival.at_s for arrival in burst([SHORT, LONG], 10, seed=0, identities=2)} == {0.0}
    assert json.dumps(summary.percentiles([])) == '{"p50_s": null, "p95_s": null, "p99_s": null}'
