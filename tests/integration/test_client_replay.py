"""Replays on the real server: the identical image, or what differs."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from id3pm_client import AsyncClient, Client, GeneratedImage, ReplayError
from tests.integration.test_client_server import PHOTO, QUICK, same

pytestmark = pytest.mark.server


@pytest.mark.parametrize(
    "options",
    [
        {},
        QUICK,
        {"preset": "fast", "steps": 3, "sr_steps": 2},
        {"sampler": "ddim", "eta": 0.7, "steps": 3, "guidance_scale": 3.1, "spacing": "logsnr", "guidance_high": 700},
        {"sampler": "dpmpp_2m", "spacing": "logsnr", "steps": 4, "sr_sampler": "dpmpp_2m", "sr_spacing": "logsnr"},
        {**QUICK, "attributes": {"yaw": -20, "smile": 0.8}},
    ],
    ids=["defaults", "quick", "preset", "ddim", "logsnr", "attributes"],
)
def test_a_replay_is_the_identical_image(
    client: Client, embedding: np.ndarray, tmp_path: Path, options: dict[str, Any]
) -> None:
    image = client.generate(embedding, 11, **options)
    image.save(tmp_path / "face.png")
    assert same(image, client.replay(tmp_path / "face.png", embedding))


def test_async_client_replays_too_and_from_the_photograph(server: Any, client: Client) -> None:
    image = client.generate_from_photo(PHOTO, 4, **QUICK)

    async def replay() -> GeneratedImage:
        async with AsyncClient(server.grpc_url, timeout_s=60) as asynchronous:
            return await asynchronous.replay(image.receipt, photo=PHOTO)

    assert same(image, asyncio.run(replay()))


def test_a_replay_that_cannot_be_says_why_before_the_work(client: Client, wire: Any, embedding: np.ndarray) -> None:
    image = client.generate(embedding, 11, **QUICK)
    with pytest.raises(ReplayError, match="id_vector_sha256"):
        client.replay(image, -embedding)
    stages = json.loads(json.dumps(image.receipt["stages"]))
    stages["base"]["options"]["steps"] = 1000  # would take long
    stages["sr"]["engine_sha256"] = "f" * 64
    before = sum(value for name, value in wire.metrics().items() if "steps" in name and "denoiser_64" in name)
    with pytest.raises(ReplayError, match=r"stages\.sr\.engine_sha256 is ffffffffffff\.\.\. in the receipt") as caught:
        client.replay({**image.receipt, "stages": stages}, embedding)
    assert set(caught.value.differences) == {"stages.sr.engine_sha256"}
    after = sum(value for name, value in wire.metrics().items() if "steps" in name and "denoiser_64" in name)
    assert after - before <= 2, "one step told the difference"
