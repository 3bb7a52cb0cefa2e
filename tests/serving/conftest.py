"""A stage model with stand-ins for Triton and the engine."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from stand_in_triton import UNET, StandInEngine, StandInTriton

from id3pm.config import DiffusionConfig, SamplingOptions
from id3pm.serving.models import stage_model as stage
from id3pm.serving.models.diffusion_stages import DenoiserModel


@pytest.fixture
def engine() -> StandInEngine:
    return StandInEngine()


@pytest.fixture
def model(engine: StandInEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[DenoiserModel]:
    manifest = types.SimpleNamespace(
        stage="base",
        target="onnx-cpu",
        diffusion=DiffusionConfig(),
        sampling=SamplingOptions(steps=3),
        unet=UNET,
        file_sha256="a" * 64,
        id_vector_model="sface",
        l2_normalised=False,
        attribute_set=None,
        bundle=types.SimpleNamespace(name="stand-in", weights_sha256="b" * 64, source=None),
        buckets="exact",
        source=None,
    )
    monkeypatch.setattr(stage, "read_manifest", lambda folder: manifest)
    monkeypatch.setattr(stage, "load_engine", lambda folder, device, threads: engine)
    parameters = {"max_rows": {"string_value": "2"}, "max_waiting": {"string_value": "2"}}
    parameters["max_backlog_s"] = {"string_value": "60"}
    args = {
        "model_repository": str(tmp_path),
        "model_version": "1",
        "model_name": "denoiser_64",
        "model_instance_kind": "CPU",
        "model_instance_device_id": "0",
        "model_config": json.dumps({"parameters": parameters}),
    }
    StandInTriton.MetricFamily.metrics.clear()
    StandInTriton.Logger.lines.clear()
    running = DenoiserModel(StandInTriton(), args)
    yield running
    engine.go.set()
    running.close()
    assert engine.closed
