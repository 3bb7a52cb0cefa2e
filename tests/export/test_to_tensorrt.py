from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_engines

from id3pm.errors import EngineError
from to_tensorrt import batch_buckets, build_plan, require_gpu


@pytest.mark.parametrize("max_batch", [1, 2, 3, 4, 7, 16, 33])
def test_the_buckets_cover_every_batch_once(max_batch: int) -> None:
    buckets = batch_buckets(max_batch)
    assert [rows for low, high in buckets for rows in range(low, high + 1)] == list(range(1, max_batch + 1))
    assert buckets[0] == (1, 1)
    assert all(high < 2 * low for low, high in buckets)


@pytest.fixture
def tensorrt_rtx() -> Any:
    return pytest.importorskip("tensorrt_rtx", reason="not installed: pip install tensorrt-rtx-cu13")


def test_a_plan_is_built_for_a_gpu_that_is_not_here(base_folder: Path, tmp_path: Path, tensorrt_rtx: Any) -> None:
    plan = tmp_path / "model.plan"
    build_plan(base_folder / "model.onnx", plan, tiny_engines.BASE, max_batch=4, gpu="sm86")
    weights = sum(parameter.numel() for parameter in tiny_engines.random_unet(tiny_engines.BASE).parameters()) * 4
    assert plan.stat().st_size > weights


def test_a_graph_that_is_none_is_refused(tmp_path: Path, tensorrt_rtx: Any) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(EngineError, match="cannot parse the graph"):
        build_plan(tmp_path / "model.onnx", tmp_path / "model.plan", tiny_engines.BASE, max_batch=1, gpu="sm86")
    assert not (tmp_path / "model.plan").exists()


def test_an_unknown_gpu_is_refused_with_those_that_are_known(tensorrt_rtx: Any) -> None:
    with pytest.raises(EngineError, match=r"--gpu sm42: tensorrt_rtx .* builds for .*sm86"):
        require_gpu("sm42")
    require_gpu("sm86")
