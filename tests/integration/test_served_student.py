"""A student behind `id3pm serve`: few steps, its guidance scale, streams, replay, and what it refuses."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from services import running

from id3pm.config import PAPER_BASE_DIFFUSION, PAPER_SR_DIFFUSION, SamplingOptions
from id3pm.pipeline import Pipeline
from id3pm_client import Client, Image64, InvalidRequestError
from tests.integration.conftest import BASE, BASE_GRAPH, SR, SR_GRAPH, tiny_engine

pytestmark = pytest.mark.server
GUIDED_GRAPH = (
    BASE_GRAPH.replace("[N,6,64,64]", "[N,3,64,64]")
    .replace("[N,7] attributes)", "[N,7] attributes, float[N] guidance)")
    .replace(
        "both_bias = Add(time_bias, identity_bias)",
        "scale = Unsqueeze(guidance, last)\n    scaled = Mul(identity_bias, scale)\n"
        "    both_bias = Add(time_bias, scaled)",
    )
)
"""The graph of the tests, whose ID vector counts as much as the guidance scale says."""


@pytest.fixture(scope="module")
def student_repository(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("student") / "triton_repo"
    shutil.copytree(repository, folder)
    for name in ("denoiser_64", "super_resolution"):
        shutil.rmtree(folder / name / "1/engine")
    base = dataclasses.replace(BASE, learn_sigma=False, guidance_range=(1.0, 3.0))
    few = dataclasses.replace(PAPER_BASE_DIFFUSION, student_timesteps=(627, 871))
    how = SamplingOptions(sampler="student", steps=2, dynamic_threshold=0.0)
    tiny_engine(folder / "denoiser_64/1/engine", "base", GUIDED_GRAPH, base, few, how)
    sr, graph = dataclasses.replace(SR, learn_sigma=False), SR_GRAPH.replace("[N,6,256,256]", "[N,3,256,256]")
    one = dataclasses.replace(PAPER_SR_DIFFUSION, student_timesteps=(214,), student_start="low_res")
    how = dataclasses.replace(how, steps=1, guidance_scale=1.0, consistency=1.0)
    tiny_engine(folder / "super_resolution/1/engine", "sr", graph, sr, one, how)
    return folder


@pytest.fixture(scope="module")
def client(student_repository: Path) -> Iterator[Client]:
    with running(student_repository) as service, Client(service.grpc_url, timeout_s=60) as made:
        yield made


def test_a_student_is_served_like_any_bundle(client: Client, student_repository: Path, embedding: np.ndarray) -> None:
    image = client.generate(embedding, 5)
    assert {stage: entry["options"]["steps"] for stage, entry in image.receipt["stages"].items()} == {
        "base": 2,
        "sr": 1,
    }
    together = client.generate(embedding, range(4, 7))
    assert together[1].image.tobytes() == image.image.tobytes()
    assert client.replay(image, embedding).image.tobytes() == image.image.tobytes()
    with Pipeline.load(student_repository, threads=1) as pipeline:
        assert pipeline.generate(embedding, 5).images[0].tobytes() == image.image.tobytes()
    strong = client.generate(embedding, 5, guidance_scale=3.0)
    assert strong.image.tobytes() != image.image.tobytes()


def test_a_student_streams_its_small_image_and_the_same_large_one(client: Client, embedding: np.ndarray) -> None:
    events = list(client.stream(embedding, 5))
    assert any(isinstance(event, Image64) for event in events)
    assert events[-1].image.tobytes() == client.generate(embedding, 5).image.tobytes()


@pytest.mark.parametrize(
    "option", [{"preset": "fast"}, {"sampler": "ddim"}, {"steps": 3}, {"sr_steps": 2}, {"guidance_scale": 4.0}]
)
def test_what_a_served_student_cannot_honour_is_refused_by_name(
    client: Client, embedding: np.ndarray, option: dict[str, object]
) -> None:
    with pytest.raises(InvalidRequestError, match="student"):
        client.generate(embedding, 5, **option)
