"""Admission by cost, on a server of its own that takes a second of work."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException

from id3pm.serving.launcher.settings import ServerSettings
from id3pm.serving.launcher.triton_server import TritonServer

pytestmark = pytest.mark.server
MODEL = "denoiser_64"


def inputs(embedding: np.ndarray, rows: int, steps: int) -> dict[str, np.ndarray]:
    return {
        "embedding": np.repeat(embedding[None], rows, axis=0),
        "seed": np.arange(rows, dtype=np.int64)[:, None],
        "steps": np.full((rows, 1), steps, np.int32),
    }


def test_too_much_work_is_refused_by_its_cost(
    repository: Path, wire_to: Any, embedding: np.ndarray, tmp_path: Path
) -> None:
    copied = tmp_path / "triton_repo"
    shutil.copytree(repository, copied)
    config = copied / MODEL / "config.pbtxt"
    text = config.read_text()
    assert text.count('string_value: "120"') == 1
    config.write_text(text.replace('string_value: "120"', 'string_value: "1"'))
    server = TritonServer(copied, ServerSettings.on_free_ports(threads=1, start_timeout_s=60))
    try:
        with server:
            wire = wire_to(server)
            work = wire.start(MODEL, ["image_64"], id="work", **inputs(embedding, 16, 1000))
            end = time.monotonic() + 10
            while (backlog := wire.control(MODEL, "ping")["backlog_s"]) <= 1.0:
                assert time.monotonic() < end, f"{backlog} s of work"
            with pytest.raises(InferenceServerException, match=r"s of work are in flight.*retry after \d+ s") as caught:
                wire.infer("id3pm", ["image"], **inputs(embedding, 1, 3))
            assert caught.value.status() == "StatusCode.UNAVAILABLE"
            wire.control(MODEL, "cancel", "work")
            with pytest.raises(InferenceServerException, match="cancelled"):
                work()
            wire.infer("id3pm", ["image"], **inputs(embedding, 1, 3))
            wire.grpc.close()
    finally:
        server.kill()
