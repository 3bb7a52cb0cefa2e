"""The script for a GPU machine, with small networks on the CPU: all but CUDA itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import gpu
from gpu_parts import PARTS, Report
from id3pm.engines import torch_engine
from id3pm.export import targets


@pytest.mark.parametrize("part", list(gpu.SHARES))
def test_every_part_gives_its_tables(part: str, tmp_path: Path) -> None:
    PARTS[part](Report(tmp_path / "result.json", "cpu", 60.0))
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["tables"] and all(line for table in result["tables"] for line in table)
    text = gpu.markdown({part: {**result, "seconds": 1.0}})
    assert f"## {part} (1 s)" in text and "Ended early" not in text


def engine_lines(folder: Path) -> list[dict[str, object]]:
    PARTS["engines"](Report(folder / "result.json", "cpu", 60.0))
    (table,) = json.loads((folder / "result.json").read_text())["tables"]
    assert [line["buckets"] for line in table] == ["exact", "fast"]
    return list(table)


def test_engines_that_can_run_are_built_proven_and_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With PyTorch on the CPU in place of the GPU."""
    monkeypatch.setattr(torch_engine, "cuda_device", lambda index: "cpu")
    monkeypatch.setattr(targets, "why_not_executable", lambda target, gpu: None)
    exact, fast = engine_lines(tmp_path)
    assert (exact["result"], fast["result"], exact["equal_bits"]) == ("ok", "ok", True)
    assert exact["company_psnr_db"] == "" and float(str(fast["company_psnr_db"])) > 60
    assert all(float(str(exact[key])) > 0 for key in ("ms_one", "ms_most", "build_s"))


def test_engines_that_cannot_run_are_named_with_the_reason(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert all("sees no GPU" in str(line["result"]) for line in engine_lines(tmp_path))


def test_parity_on_the_cpu_is_exact(tmp_path: Path) -> None:
    PARTS["parity"](Report(tmp_path / "result.json", "cpu", 60.0))
    (table,) = json.loads((tmp_path / "result.json").read_text())["tables"]
    assert {line["precision"] for line in table} == {"fp32"}
    assert all(float(line["forward_error"]) < 1e-5 and float(line["images_psnr_db"]) > 40 for line in table)


def test_a_part_that_takes_too_long_or_fails_is_named_and_stops_no_other(tmp_path: Path) -> None:
    result = gpu.run_part("machine", "cpu", 0.2, tmp_path)
    assert result["failed"] == "the limit of 0 s" and result["tables"] == []
    result = gpu.run_part("machine", "no such device", 60.0, tmp_path)
    assert "device" in result["failed"].lower()
    assert "Ended early" in gpu.markdown({"machine": result})
