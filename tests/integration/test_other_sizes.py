"""A bundle of other sizes than the paper's, 32 -> 128 px, is served like any other on every way in."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from services import running

from id3pm.config import PAPER_BASE_DIFFUSION, PAPER_SR_DIFFUSION
from id3pm.export.repository import write_repository
from id3pm.serving.service import Service
from id3pm_client import Client, Image64
from tests.integration.conftest import (
    BASE,
    BASE_GRAPH,
    BASE_SAMPLING,
    SR,
    SR_GRAPH,
    SR_SAMPLING,
    tiny_engine,
)

pytestmark = pytest.mark.server
SIZES = {"base": 32, "sr": 128}


def at(graph: str) -> str:
    return graph.replace("256,256", "128,128").replace("64,64", "32,32")


@pytest.fixture(scope="module")
def service(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("small") / "triton_repo"
    write_repository(folder, SIZES)
    shutil.copytree(repository / "face_embedding/1/engine", folder / "face_embedding/1/engine")
    base = dataclasses.replace(BASE, image_size=32)
    sr = dataclasses.replace(SR, image_size=128, low_res_size=32)
    tiny_engine(folder / "denoiser_64/1/engine", "base", at(BASE_GRAPH), base, PAPER_BASE_DIFFUSION, BASE_SAMPLING)
    tiny_engine(folder / "super_resolution/1/engine", "sr", at(SR_GRAPH), sr, PAPER_SR_DIFFUSION, SR_SAMPLING)
    with running(folder) as service:
        yield service


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[Client]:
    with Client(service.grpc_url, timeout_s=60) as made:
        yield made


def test_images_of_both_stages_have_the_sizes_of_the_bundle(client: Client, embedding: np.ndarray) -> None:
    image = client.generate(embedding, 1, with_64=True)
    assert image.image.size == (128, 128)
    assert image.image_64 is not None and image.image_64.size == (32, 32)
    assert client.replay(image, embedding).image.tobytes() == image.image.tobytes()


def test_a_stream_shows_them_and_ends_with_the_same_image(client: Client, embedding: np.ndarray) -> None:
    events = list(client.stream(embedding, 1))
    small = next(event for event in events if isinstance(event, Image64))
    assert small.image.size == (32, 32)
    assert events[-1].image.tobytes() == client.generate(embedding, 1).image.tobytes()


def test_http_gives_pictures_of_these_sizes(
    service: Service, wire_to: Callable[[Any], Any], embedding: np.ndarray
) -> None:
    body = {"embedding": embedding.tolist(), "seed": 1}
    status, answer = wire_to(service).http("/v2/models/id3pm/generate_stream", body)
    assert status == 200 and b"event: image_64" in answer and b"event: image\n" in answer
    events = answer.decode().split("\n\n")
    sizes = {}
    for event in events:
        lines = dict(line.split(": ", 1) for line in event.splitlines() if ": " in line)
        if lines.get("event") in ("image_64", "image"):
            picture = Image.open(io.BytesIO(base64.b64decode(json.loads(lines["data"])["png"])))
            sizes[lines["event"]] = picture.size
    assert sizes == {"image_64": (32, 32), "image": (128, 128)}
