"""Attributes by name on the real server: every way in gives one image, and the server says which there are."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from id3pm.attributes import describe_fields, encode
from id3pm_client import AsyncClient, Client, InvalidRequestError
from id3pm_client._contract import OPTIONS
from tests.integration.test_client_server import QUICK, same

pytestmark = pytest.mark.server
ASKED = {"yaw": -20, "smile": 0.75}


def test_the_server_describes_its_attributes_to_both_clients(server: Any, client: Client) -> None:
    async def describe() -> Any:
        async with AsyncClient(server.grpc_url) as asynchronous:
            return await asynchronous.describe()

    described = client.describe()
    assert described == asyncio.run(describe())
    assert described["attributes"] == describe_fields("landmarks")
    assert described["image_sizes"] == {"image_64": 64, "image": 256}
    assert (described["defaults"]["steps"], described["defaults"]["sr_steps"]) == (3, 2)
    assert described["presets"]["fast"]["sr_consistency"] == 1.0
    assert set(described["presets"]["paper"]) < set(OPTIONS)
    assert {name: described[name] for name in ("bundle", "id_vector_model", "identity_dim", "attribute_set")} == {
        "bundle": "tiny",
        "id_vector_model": "sface",
        "identity_dim": 128,
        "attribute_set": "landmarks",
    }


def test_names_text_and_vector_are_the_same_image_and_another_than_without(
    client: Client, embedding: np.ndarray
) -> None:
    vector = encode(ASKED, "landmarks")
    by_name = client.generate(embedding, 3, attributes=ASKED, **QUICK)
    assert by_name.receipt["stages"]["base"]["options"]["attributes"] == vector.tolist()
    assert same(by_name, client.generate(embedding, 3, attributes=vector, **QUICK))
    assert same(by_name, client.generate(embedding, 3, attribute_values="yaw=-20,smile=0.75", **QUICK))
    without = client.generate(embedding, 3, **QUICK)
    assert by_name.image.tobytes() != without.image.tobytes()
    assert without.receipt["stages"]["base"]["options"]["attributes"] == [-1.0] * 7


def test_each_image_may_have_its_own(client: Client, embedding: np.ndarray) -> None:
    several = client.generate(embedding, 3, attributes=[ASKED, {"yaw": 20}], **QUICK)
    assert same(several[0], client.generate(embedding, 3, attributes=ASKED, **QUICK))
    assert several[0].image.tobytes() != several[1].image.tobytes()


def test_plain_http_takes_them_as_text(wire: Any, client: Client, embedding: np.ndarray) -> None:
    body = {"embedding": embedding.tolist(), "seed": 3, **QUICK, "attribute_values": "yaw=-20,smile=0.75"}
    status, answer = wire.http("/v2/models/id3pm_png/generate", body)
    assert status == 200, answer
    picture = Image.open(io.BytesIO(base64.b64decode(json.loads(answer)["png"])))
    assert picture.tobytes() == client.generate(embedding, 3, attributes=ASKED, **QUICK).image.tobytes()


def test_a_value_out_of_range_names_the_field_and_its_range(client: Client, embedding: np.ndarray) -> None:
    with pytest.raises(InvalidRequestError, match=r"yaw=-40: must be a number from -35 to 35 degrees"):
        client.generate(embedding, 3, attributes={"yaw": -40})
