"""A server whose stages are bf16 engines under OpenVINO, beside onnxruntime for the face models."""

from __future__ import annotations

import dataclasses
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from id3pm.engines.manifest import read_manifest, write_manifest
from id3pm.engines.openvino_engine import why_no_bf16
from id3pm.pipeline import Pipeline
from id3pm.serving.launcher.settings import ServerSettings
from id3pm.serving.launcher.triton_server import TritonServer
from id3pm_client import Client

pytestmark = [pytest.mark.server, pytest.mark.skipif(why_no_bf16() is not None, reason=str(why_no_bf16()))]


@pytest.fixture
def bf16_repository(repository: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(repository, tmp_path / "triton_repo"))
    for model in ("denoiser_64", "super_resolution"):
        engine = folder / model / "1" / "engine"
        manifest = dataclasses.replace(read_manifest(engine), target="openvino-cpu", precision="bf16")
        write_manifest(engine, manifest)
    return folder


def test_bf16_engines_are_served_and_a_seed_means_one_image(bf16_repository: Path, embedding: np.ndarray) -> None:
    server = TritonServer(
        bf16_repository, ServerSettings.on_free_ports(threads=1, start_timeout_s=60, drain_timeout_s=5)
    )
    with server, Client(server.grpc_url, timeout_s=60) as client, ThreadPoolExecutor(5) as pool:
        alone = client.generate(embedding, 7)
        answers = [pool.submit(client.generate, sign * embedding, seed) for seed in (7, 1, 2) for sign in (1, -1)]
        in_company = answers[0].result()
    with Pipeline.load(bf16_repository, threads=2) as pipeline:
        in_process = pipeline.generate(embedding, 7)
    assert alone.image.tobytes() == in_company.image.tobytes() == in_process.images[0].tobytes()
    stages = alone.receipt["stages"]
    assert all(" CPU bf16" in stages[stage]["engine"] for stage in ("base", "sr")), stages
