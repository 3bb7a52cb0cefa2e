from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from id3pm.config import PAPER_BASE_64, PAPER_SR_256
from networks import SMALL_64, module_flops, parameters, unet_flops
from workers import Worker, median_and_spread

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


def test_a_failing_contender_says_why() -> None:
    worker = Worker(int, {"x": 1})
    try:
        with pytest.raises(RuntimeError, match="TypeError: .*keyword argument"):
            worker.result()
    finally:
        worker.close()


def test_quick_bench_measures_and_all_agree(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "bench.py"), "--quick", "--precisions", "fp32", "--out", "out"]
    # One thread: on a busy machine OpenMP's spinning threads would wait for each other for minutes.
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "out" / "bench.json").read_text())
    (size,) = results["sizes"]
    rows = {row["name"]: row for row in size["rows"]}
    assert list(rows) == ["PyTorch eager", "diffusers UNet2DModel", "ours fp32"]
    assert size["not_built"] == {} and rows["PyTorch eager"]["speed"] == 1.0
    assert rows["ours fp32"]["psnr_db"] > 60  # guided-diffusion's loop and the scheduler's give the same images
    for row in rows.values():
        assert 0 < row["of_peak"] < 1 and row["ms_per_step"] > 0 and 0 < row["outside_unet"] < 1
        assert row["peak_rss_gib"] > 0.1
    assert "| ours fp32 |" in (tmp_path / "out" / "bench.md").read_text()
    assert (tmp_path / "out" / "bench.png").stat().st_size > 5000
