"""The load tests of `benchmarks/load` against the real server."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from id3pm.serving.launcher.settings import ServerSettings
from id3pm.serving.launcher.triton_server import TritonServer
from load import baseline, fault_actions, faults, layers, soak, stand_ins
from load.arrivals import Kind, burst, poisson
from load.generator import Generator, drive
from load.plain_triton import PlainTriton
from load.references import references
from load.running import Traffic
from load.service import HOST, ServiceProcess

pytestmark = pytest.mark.server
ROOT = Path(__file__).parents[2]
SHORT = Kind(name="short", options={"steps": 2, "sr_steps": 1})
LONG = Kind(name="long", options={"steps": 12, "sr_steps": 2})
BAD = Kind(name="bad", options={"steps": 100_000}, share=0.1, valid=False)
KNOWN_SEEDS = 3


@pytest.fixture(scope="module")
def identities(embedding: np.ndarray) -> np.ndarray:
    return np.stack([embedding, -embedding, embedding[::-1]])


@pytest.fixture(scope="module")
def known(repository: Path, identities: np.ndarray) -> dict[tuple[str, int], str]:
    return references(repository, [SHORT, LONG, BAD], identities, KNOWN_SEEDS, threads=1)


@pytest.fixture(scope="module")
def service(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    process = ServiceProcess(repository, tmp_path_factory.mktemp("service") / "log")
    try:
        process.start()
        yield process
        assert process.terminate() == 0
    finally:
        process.kill()


def test_known_images_come_back_with_the_same_bits_under_mixed_load(
    server: TritonServer, identities: np.ndarray, known: dict[tuple[str, int], str]
) -> None:
    arrivals = poisson(
        [SHORT, LONG, BAD],
        20.0,
        60,
        seed=0,
        identities=len(identities),
        known=0.6,
        known_seeds=KNOWN_SEEDS,
        cancelled=0.1,
        patience_s=0.05,
    )
    records = drive(Generator(server.grpc_url, identities, known), arrivals)
    assert len(records) == 60 and all(record.expected for record in records), [r for r in records if not r.expected]
    assert not any(record.wrong for record in records)
    assert {"ok", "invalid"} <= {record.outcome for record in records}


def test_the_baseline_batches_whole_requests_and_makes_the_same_images(
    repository: Path, identities: np.ndarray, known: dict[tuple[str, int], str], tmp_path: Path
) -> None:
    arrivals = poisson([SHORT, LONG], 50.0, 12, seed=1, identities=len(identities), known=1.0, known_seeds=KNOWN_SEEDS)
    with PlainTriton(baseline.build(tmp_path / "baseline", repository)) as server:
        records = drive(Generator(server.grpc_url, identities, known), arrivals)
        metrics = _metrics(server.ports["metrics-port"])
    assert [record.outcome for record in records] == ["ok"] * 12 and not any(record.wrong for record in records)
    batches = re.search(r"^nv_inference_exec_count{[^}]*} (\d+)", metrics, re.MULTILINE)
    assert batches is not None and 1 <= int(batches[1]) < 12


def test_a_short_soak_of_the_whole_service_loses_nothing_and_leaks_no_images(
    service: ServiceProcess, identities: np.ndarray, known: dict[tuple[str, int], str]
) -> None:
    results = soak.soak(
        service,
        Traffic([SHORT, LONG, BAD], identities, known, KNOWN_SEEDS),
        rate=8.0,
        seconds=16.0,
        seed=0,
        # In so short a time the stages are still filling their memory of recent answers, up to 200 KB each: 5800 MB/h.
        # A leak of as much, one image, in every request comes on top.
        limit_mb_per_h=8000.0,
    )
    everything = results["summary"]["kinds"]["all"]
    assert not (everything["unexpected"] or everything["wrong"] or results["left_in_flight"]), results["summary"]
    assert everything["images"] > 60 and everything["outcomes"]["invalid"] > 3
    assert results["verdict"] != "growing", results["fits"]
    measured = {label.split(" (")[0] for sample in results["samples"] for label in sample["parts_mb"]}
    assert {"id3pm", "tritonserver", "denoiser_64", "super_resolution", "face_embedding"} <= measured
    for program in ("id3pm", "tritonserver", "face_embedding"):  # which keep no answers
        first, last = (
            sum(mb for label, mb in sample["parts_mb"].items() if label.startswith(f"{program} ("))
            for sample in (results["samples"][len(results["samples"]) // 4], results["samples"][-1])
        )
        assert last - first < 5.0, f"{program}: {first:.1f} -> {last:.1f} MB in 12 s"


def test_faults_lose_nothing(
    repository: Path, identities: np.ndarray, known: dict[tuple[str, int], str], tmp_path: Path
) -> None:
    results = faults.inject_all(
        repository,
        tmp_path,
        Traffic([SHORT, LONG], identities, known, KNOWN_SEEDS),
        rate=4.0,
        seconds=6.0,
        seed=0,
        faults=["slow engine", "exception for one image, always", "network cut", "stub killed, disk full"],
    )
    assert faults.passed(results), "\n".join(str(row) for row in results["rows"])
    slow, _, cut, full = results["rows"]
    assert slow["slowest_s"] > fault_actions.SLOW_S and cut["next_image_s"] > 1.0
    assert "not_injected" in full or full["next_image_s"] < 12.0, "one start after another failed"


def test_the_dashboard_shows_only_what_the_server_measures(service: ServiceProcess) -> None:
    metrics = _metrics(service.ports["metrics-port"])
    served = set(re.findall(r"^# TYPE (id3pm_\w+)", metrics, re.MULTILINE))
    text = (ROOT / "deploy" / "grafana" / "id3pm.json").read_text()
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"id3pm_\w+", text)}
    assert len(shown) > 10 and shown <= served, shown - served


def test_the_stand_ins_serve(repository: Path, identities: np.ndarray, tmp_path: Path) -> None:
    copy = stand_ins.build_repository(tmp_path / "stand_ins", repository)
    with TritonServer(copy, ServerSettings.on_free_ports(threads=1)) as server:
        arrivals = burst([SHORT], 4, seed=0, identities=len(identities))
        assert {record.outcome for record in drive(Generator(server.grpc_url, identities), arrivals)} == {"ok"}


def test_all_ways_make_the_same_images_and_their_processes_are_told_apart(repository: Path, tmp_path: Path) -> None:
    copy = stand_ins.build_repository(tmp_path / "same_work", repository, same_work=True)
    measured = layers.measure(copy, tmp_path, images=3, steps=2, sr_steps=1, rounds=1)
    ways = measured["ways"]
    assert list(ways) == [layers.PLAIN, layers.SCHEDULED, layers.STAGEWISE, layers.ENSEMBLE, layers.GATEWAY]
    stages = {"tritonserver", "denoiser_64", "super_resolution", "face_embedding"}
    assert stages <= ways[layers.STAGEWISE]["parts_ms"].keys() == ways[layers.ENSEMBLE]["parts_ms"].keys()
    assert "id3pm" in ways[layers.GATEWAY]["parts_ms"].keys() - ways[layers.ENSEMBLE]["parts_ms"].keys()
    assert all(min(way["processor_ms"]) > 0 for way in ways.values())
    assert [name for name, way in ways.items() if way["client_ms"][0]] == list(ways)[2:]


def _metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://{HOST}:{port}/metrics", timeout=10) as response:
        return str(response.read().decode())
