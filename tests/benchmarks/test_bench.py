from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
import torch

import report
import suite
from builds import Build, known_builds
from id3pm.config import PAPER_BASE_64, PAPER_SR_256
from id3pm.export import targets
from networks import SMALL_64, module_flops, parameters, unet_flops
from workers import Worker, interleaved, median_and_spread

ROOT = Path(__file__).parents[2]


def test_operations_are_counted_as_by_hand() -> None:
    convolution = torch.nn.Conv2d(5, 7, 3, padding=1)
    assert module_flops(convolution, input=torch.zeros(1, 5, 11, 13)) == 2 * 9 * 5 * 7 * 11 * 13


def test_the_papers_networks_take_the_operations_that_were_published() -> None:
    assert unet_flops(PAPER_BASE_64) / 1e9 == pytest.approx(219, rel=0.01)
    assert unet_flops(PAPER_SR_256) / 1e9 == pytest.approx(1263, rel=0.01)
    assert parameters(SMALL_64) / 1e6 == pytest.approx(18.2, rel=0.01)


def test_median_and_spread() -> None:
    assert median_and_spread([3.0, 1.0, 2.0]) == (2.0, 0.5)


class Counter:
    """A contender that counts its turns and fails at one of them."""

    def __init__(self, fails_at: int = 99) -> None:
        self._turns, self._fails_at = 0, fails_at

    def sample(self) -> int:
        self._turns += 1
        if self._turns == self._fails_at:
            os._exit(7)
        return self._turns


def test_a_contender_that_dies_leaves_the_others_their_turns() -> None:
    workers = {"good": Worker(Counter, {}), "bad": Worker(Counter, {"fails_at": 3})}
    try:
        for worker in workers.values():
            worker.result()
        turns, failed = interleaved(workers, seconds=0.0, least=3, most=9)
    finally:
        for worker in workers.values():
            worker.close()
    assert turns == {"good": [2, 3, 4]}  # the first warms up; three rounds are made whatever they take
    assert failed == {"bad": "the process died with exit code 7"}


def test_rounds_are_as_many_as_there_is_time_for() -> None:
    worker = Worker(Counter, {})
    try:
        worker.result()
        assert interleaved({"one": worker}, seconds=60.0, least=1, most=5).turns == {"one": [2, 3, 4, 5, 6]}
    finally:
        worker.close()


def test_a_failing_contender_says_why() -> None:
    worker = Worker(int, {"x": 1})
    try:
        with pytest.raises(RuntimeError, match="TypeError: .*keyword argument"):
            worker.result()
    finally:
        worker.close()


def test_engines_come_from_the_table_of_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    here, not_here = known_builds(None)
    assert Build("onnx-cpu", "fp32") in here and Build("onnx-cpu", "int8") in here
    assert "GPU" in not_here["tensorrt"]
    new = dataclasses.replace(targets.TARGETS["onnx-cpu"], precisions={"fp8": targets.Precision()})
    monkeypatch.setattr(targets, "TARGETS", {"onnx-cpu": new})
    assert known_builds(None) == ([Build("onnx-cpu", "fp8")], {})
    with pytest.raises(click.BadParameter, match="--engines int8: choose from onnx-cpu-fp8"):
        known_builds(["int8"])


def test_one_engine_per_precision_is_the_fastest() -> None:
    builds = [Build("onnx-cpu", "fp32"), Build("onnx-cpu", "int8"), Build("tensorrt", "int8")]
    rows = [{"name": suite.row_name(build), "speed": speed} for build, speed in zip(builds, (2, 3, 4), strict=True)]
    assert suite.fastest_of_each_precision(builds, [{"rows": rows}]) == [builds[0], builds[2]]
    assert suite.fastest_of_each_precision(builds, []) == builds[:2]


def row(name: str, precision: str, speed: float, outside: float) -> dict[str, object]:
    return {"name": name, "precision": precision, "ours": True, "speed": speed, "outside_unet": outside}


def test_targets_are_judged_by_the_best_engine_of_a_precision() -> None:
    rows = [row("a", "int8", 2.4, 0.01), row("b", "int8", 2.6, 0.04), row("c", "fp32", 1.4, 0.02)]
    peer = {**row("PyTorch", "bf16", 9.0, 0.5), "ours": False}
    presets = [{"engine": "b", "seconds_per_image": {"paper": 9.0, "fast": 1.0}}, {"engine": "c", "failed": "why"}]
    results = {"sizes": [{"size": "s", "images": 8, "rows": [*rows, peer]}], "presets": presets}
    assert report.targets(results)[2:] == [
        "| s: fp32 >= 1.5x eager PyTorch fp32 | 1.40x, c | **missed** |",
        "| s: int8 >= 2.5x eager PyTorch fp32 | 2.60x, b | met |",
        "| s: outside the U-Net <= 3% of a step at batch 8 | 4.0%, b | **missed** |",
        "| b: `fast` >= 10x the images/s of `paper` | 9x | **missed** |",
    ]


def test_tables_replace_what_the_page_says_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- bench -->\nold\n<!-- end of bench -->\nafter\n")
    for lines in (["| first |"], ["| new |"]):
        report.insert(page, "bench", lines)
    assert page.read_text() == "before\n<!-- bench -->\n\n| new |\n\n<!-- end of bench -->\nafter\n"
    with pytest.raises(ValueError, match="needs one line '<!-- steps -->'"):
        report.insert(page, "steps", [])


def test_quick_bench_measures_and_all_agree(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "bench.py"),
        "--quick",
        "--engines",
        "onnx-cpu-fp32",
        "--out",
        "out",
    ]
    # One thread: on a busy machine OpenMP's spinning threads would wait for each other for minutes.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "out" / "bench.json").read_text())
    (size,) = results["sizes"]
    rows = {row["name"]: row for row in size["rows"]}
    ours = rows.pop("ours onnx-cpu fp32")
    assert list(rows) == ["PyTorch eager fp32", "PyTorch autocast bf16", "diffusers UNet2DModel fp32"]
    assert size["left_out"] == {} and rows["PyTorch eager fp32"]["speed"] == 1.0
    assert ours["psnr_db"] > 60  # guided-diffusion's loop and the scheduler's give the same images
    for row in (*rows.values(), ours):
        # Operations are counted as if convolutions were direct; Winograd's does 2.25 times fewer.
        assert row["ms_per_step"] > 0 and 0 < row["outside_unet"] < 1
        if row["precision"] == "fp32" or "of_peak" in row:  # a processor without bf16 instructions has no peak of it
            assert 0 < row["of_peak"] < 2.25
        assert row["speed_range"][0] <= row["speed"] <= row["speed_range"][1]
    # PyTorch is not in the process of our engine.
    assert 0.02 < ours["peak_rss_gib"] < 0.2 < rows["PyTorch eager fp32"]["peak_rss_gib"]
    text = (tmp_path / "out" / "bench.md").read_text()
    assert "| **ours onnx-cpu fp32** |" in text and "| tiny: fp32 >= 1.5x eager PyTorch fp32 |" in text
    assert (tmp_path / "out" / "bench.png").stat().st_size > 5000
