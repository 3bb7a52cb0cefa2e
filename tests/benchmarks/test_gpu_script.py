"""The script for a GPU machine, with small networks on the CPU: all but CUDA itself."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gpu
from gpu_parts import engines as engines_part
from gpu_parts import part, poisson_load, served, sharing
from gpu_parts.both_stages import Engines, InProcess, Job, RequestBatches, System, engines_of, vectors_of
from gpu_parts.report import Report
from gpu_parts.stage_models import StageModels
from gpu_parts.tritonserver import why_no_triton
from id3pm.engines import torch_engine
from id3pm.export import targets


@pytest.fixture
def no_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without a server: the rest must be measured."""
    for module in (served, poisson_load):
        monkeypatch.setattr(module, "why_no_triton", lambda: "no tritonserver")


@pytest.mark.usefixtures("no_triton", "eager_compiler")
@pytest.mark.parametrize("name", [name for name in gpu.SHARES if name != "engines"])  # which has its own tests
def test_every_part_gives_its_tables(name: str, tmp_path: Path) -> None:
    part(name)(Report(tmp_path / "result.json", "cpu", 600.0))
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["tables"] and all(line for table in result["tables"] for line in table)
    ways = [line["way"] for line in result["tables"][0] if name == "paper"]
    assert sum("torch.compile" in way for way in ways) == (2 if name == "paper" else 0), "for both networks"
    done = [line["result"] for line in result["tables"][0] if name == "training"]
    assert done == (["ok"] * 17 if name == "training" else []), "both networks, each way that concerns them"
    text = gpu.markdown({name: {**result, "seconds": 1.0}})
    assert f"## {name} (1 s)" in text and "Ended early" not in text


def engine_lines(folder: Path) -> list[dict[str, object]]:
    part("engines")(Report(folder / "result.json", "cpu", 60.0))
    (table,) = json.loads((folder / "result.json").read_text())["tables"]
    return list(table)


@pytest.mark.usefixtures("eager_compiler")
def test_engines_that_can_run_are_built_proven_and_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With PyTorch on the CPU in place of the GPU."""
    monkeypatch.setattr(torch_engine, "cuda_device", lambda index: "cpu")
    monkeypatch.setattr(targets, "why_not_executable", lambda target, gpu: None)
    exact, fast, graph, compiled = lines = engine_lines(tmp_path)
    assert [line["buckets"] for line in lines] == ["exact", "fast", "exact", "exact"]
    assert [line["target"] for line in lines] == ["torch-cuda", "torch-cuda", "onnx-cpu", "torch-cuda compiled"]
    assert (exact["result"], fast["result"], exact["equal_bits"]) == ("ok", "ok", True)
    for other in (graph, compiled):
        assert (other["result"], other["equal_bits"]) == ("ok", True)
    for line in (exact, graph, compiled):
        assert (line["equal_in_companies"], line["place_matters"]) == ("2 of 2", False)
    assert "Ended early" not in gpu.markdown({"engines": {"tables": [lines]}})
    assert exact["company_psnr_db"] == "" and float(str(fast["company_psnr_db"])) > 60
    assert all(float(str(exact[key])) > 0 for key in ("ms_one", "ms_most", "build_s"))


def test_engines_that_cannot_run_are_named_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    monkeypatch.setattr(engines_part, "SMALL_WAYS", engines_part.WAYS[:2])
    lines = engine_lines(tmp_path)
    assert len(lines) == 3 and all("sees no GPU" in str(line["result"]) for line in lines)


def test_parity_on_the_cpu_is_exact(tmp_path: Path) -> None:
    part("parity")(Report(tmp_path / "result.json", "cpu", 60.0))
    (table,) = json.loads((tmp_path / "result.json").read_text())["tables"]
    assert {line["precision"] for line in table} == {"fp32"}
    assert all(float(line["forward_error"]) < 1e-5 and float(line["images_psnr_db"]) > 40 for line in table)


def test_a_part_that_takes_too_long_or_fails_is_named_and_stops_no_other(tmp_path: Path) -> None:
    result = gpu.run_part("machine", "cpu", 0.2, tmp_path)
    assert result["failed"] == "the limit of 0 s" and result["tables"] == []
    result = gpu.run_part("machine", "no such device", 60.0, tmp_path)
    assert "device" in result["failed"].lower()
    assert "Ended early" in gpu.markdown({"machine": result})


@pytest.fixture
def engines(tmp_path: Path) -> Iterator[Engines]:
    with engines_of(Report(tmp_path / "result.json", "cpu", 60.0)) as made:
        yield made


def ends(system: System, jobs: dict[str, Job]) -> dict[str, Any]:
    """The images by name, in the order in which they were done."""
    done: queue.Queue[tuple[str, Any]] = queue.Queue()
    for name, job in jobs.items():
        system.submit(job, lambda image, name=name: done.put((name, image)))  # type: ignore[misc]
    found = dict(done.get(timeout=60) for _ in jobs)
    system.close()
    assert all(isinstance(image, np.ndarray) for image in found.values()), found
    return found


def test_the_systems_that_are_compared_make_the_same_images(engines: Engines) -> None:
    vectors = vectors_of(engines, 3)
    jobs = {str(n): Job(vectors[n], seed=n, steps=2 - n % 2) for n in range(3)}
    expected = ends(InProcess(engines), jobs)
    for system in (StageModels(engines, "fp32"), RequestBatches(engines)):
        made = ends(system, jobs)
        assert all(np.array_equal(made[name], expected[name]) for name in jobs), type(system).__name__


def test_a_short_request_overtakes_long_ones_but_not_the_batch_of_the_baseline(engines: Engines) -> None:
    vectors = vectors_of(engines, 3)
    jobs = {name: Job(vectors[n], n, steps) for n, (name, steps) in enumerate({"a": 12, "b": 12, "short": 1}.items())}
    assert list(ends(RequestBatches(engines), jobs))[-1] == "short", "the full batch went first"
    assert next(iter(ends(StageModels(engines, "fp32"), jobs))) == "short"


def test_the_peaks_are_measured_where_there_is_nothing_but_pytorch(tmp_path: Path) -> None:
    blocked = ("id3pm", "array_api_compat", "safetensors", "PIL", "click", "rich")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked}))\n"
        f"sys.path.insert(0, {str(Path(gpu.__file__).parent)!r})\n"
        "import pathlib\nfrom gpu_parts import part\nfrom gpu_parts.report import Report\n"
        f"part('machine')(Report(pathlib.Path({str(tmp_path / 'result.json')!r}), 'cpu', 60.0))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert "matrix product fp32" in (tmp_path / "result.json").read_text()


MPS = """#!/bin/sh
echo "$0 $* $(test "$1" = -d || cat) in $CUDA_MPS_PIPE_DIRECTORY" >> {log}
test "$1" = -d || echo {servers}
"""


def lines_of_layouts(folder: Path, monkeypatch: pytest.MonkeyPatch, servers: str) -> tuple[list[Any], list[str]]:
    """The layouts of `sharing` with a stand-in for MPS's control program, and what it was told."""
    log, program = folder / "log", folder / sharing.CONTROL
    program.write_text(MPS.format(log=log, servers=servers))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(sharing, "_in_processes", lambda report, seconds, environment, joined: joined() or [4.0, 1.0])
    part("sharing")(Report(folder / "result.json", "cpu", 60.0))
    (table,) = json.loads((folder / "result.json").read_text())["tables"]
    return table, log.read_text().splitlines()


def test_mps_is_started_for_its_layout_alone_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, told = lines_of_layouts(tmp_path, monkeypatch, "123")
    assert [line["way"] for line in table][2:] == ["two processes", "two processes, MPS"]
    commands, places = zip(*(line.split(" ", 1)[1].rsplit(" in ", 1) for line in told), strict=True)
    assert [command.split()[0] for command in commands] == ["-d", "get_server_list", "quit"]
    assert len(set(places)) == 1 and not Path(places[0]).exists(), "one of its own, not the machine's"


def test_processes_that_did_not_join_mps_are_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, told = lines_of_layouts(tmp_path, monkeypatch, "")
    assert "no process has joined it" in table[3]["way"] and "together" not in table[3]
    assert "quit" in told[-1]


def test_a_process_that_ends_early_fails_its_layout_alone(tmp_path: Path) -> None:
    report = Report(tmp_path / "result.json", "no such device", 60.0)
    with pytest.raises(RuntimeError, match="a process ended early"):
        sharing._in_processes(report, 0.1, {}, lambda: None)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["served", "load"])
def test_both_parts_go_through_a_real_server_where_there_is_one(name: str, tmp_path: Path) -> None:
    if (missing := why_no_triton()) is not None:
        pytest.skip(missing)
    part(name)(Report(tmp_path / "result.json", "cpu", 120.0))
    assert "through Triton" in (tmp_path / "result.json").read_text()
