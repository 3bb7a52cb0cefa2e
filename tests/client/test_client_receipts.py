"""Replaying receipts: the identical image, or what is different."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from id3pm_client import Call, InvalidRequestError, ReplayError
from id3pm_client import _contract as contract
from id3pm_client._images import png_of
from tests.client.conftest import FakeServer, texts

VECTOR = np.array([0, 1, 2, 3], np.float32)  # what the stand-in finds in photographs
PIXELS = np.full((6, 5, 3), 200, np.uint8)
OPTIONS: dict[str, Any] = {"steps": 5, "sampler": "ddim", "guidance_scale": 2.0, "sr_steps": 3, "sr_consistency": 1.0}


class Receipts:
    """Answers with receipts as the server writes them."""

    def __init__(self) -> None:
        self.version = "1.0"
        self.engines = {"base": "a" * 64, "sr": "b" * 64}
        self.sr_threshold = 0.0
        self.shade = 7

    def __call__(self, call: Call) -> Any:
        if call.model == contract.FACE_EMBEDDING:
            faces = {"detection": np.zeros((1, 15), np.float32), "faces": np.ones((1, 1), np.int32)}
            faces["turned"] = np.zeros((1, 1), np.int32)
            faces["id_vector_model"] = np.array([[b"sface"]], dtype=np.object_)
            return {"embedding": VECTOR[None], **faces}
        values = {name: tensor[0].tolist() for name, tensor in call.inputs.items()}
        plain = {name: value[0] for name, value in values.items() if name not in ("attributes", "embedding")}
        plain = {name: value.decode() if isinstance(value, bytes) else value for name, value in plain.items()}
        plain = {"sampler": "ddpm", "sr_sampler": "ddpm", **plain}
        base = {name: plain.get(name, 0) for name in ("sampler", "steps", "guidance_scale", "eta")}
        if "attributes" in values:
            base["attributes"] = values["attributes"]
        sr = {name: plain.get(f"sr_{name}", 0) for name in ("sampler", "steps", "eta", "consistency")}
        stages = {"base": base, "sr": {**sr, "dynamic_threshold": self.sr_threshold}}
        vector = call.inputs.get("embedding")
        receipt = {
            "schema": 1,
            "id3pm": self.version,
            "bundle": "demo",
            "seed": plain["seed"],
            "id_vector_sha256": None if vector is None else hashlib.sha256(vector.tobytes()).hexdigest(),
            "stages": {
                stage: {"options": options, "engine_sha256": self.engines[stage], "weights_sha256": "c" * 64}
                for stage, options in stages.items()
            },
        }
        tensors = {
            "image": np.full((1, 256, 256, 3), self.shade, np.uint8),
            "image_64": np.full((1, 64, 64, 3), self.shade, np.uint8),
            "receipt": texts(json.dumps(receipt)),
        }
        return {name: tensors[name] for name in call.outputs}


@pytest.fixture
def receipts(server: FakeServer) -> Receipts:
    server.answer = Receipts()
    return server.answer


def models(server: FakeServer) -> list[str]:
    return [call.model for call in server.calls]


def test_a_receipt_in_any_form_gives_the_image_again(
    client: Any, server: FakeServer, receipts: Receipts, tmp_path: Path
) -> None:
    image = client.generate(VECTOR, 9, attributes=[0.5, -1.0], **OPTIONS)
    image.save(tmp_path / "face.png")
    (tmp_path / "receipt.json").write_text(json.dumps(image.receipt))
    forms = [image, image.receipt, json.dumps(image.receipt), tmp_path / "face.png", str(tmp_path / "receipt.json")]
    sent = server.calls[0].inputs
    for form in forms:
        server.calls.clear()
        again = client.replay(form, VECTOR)
        assert again.receipt == image.receipt
        assert again.image.tobytes() == image.image.tobytes()
        assert models(server) == ["id3pm", "id3pm"]
        inputs = server.calls[-1].inputs
        assert all(np.array_equal(inputs[name], sent[name]) for name in sent)


def test_one_step_of_each_stage_tells_the_servers_hashes(client: Any, server: FakeServer, receipts: Receipts) -> None:
    client.replay(client.generate(VECTOR, 9, **OPTIONS), VECTOR)
    _, probe, _ = server.calls
    assert probe.inputs["steps"].tolist() == probe.inputs["sr_steps"].tolist() == [[1]]


def test_the_photograph_does_instead_of_the_vector(client: Any, server: FakeServer, receipts: Receipts) -> None:
    image = client.generate(VECTOR, 9, **OPTIONS)
    assert client.replay(image, photo=PIXELS).receipt == image.receipt


def test_another_vector_is_refused_before_anything_is_sent(client: Any, server: FakeServer, receipts: Receipts) -> None:
    image = client.generate(VECTOR, 9, **OPTIONS)
    server.calls.clear()
    with pytest.raises(ReplayError, match="not the ID vector of the receipt: id_vector_sha256 is [0-9a-f]{12}") as e:
        client.replay(image, VECTOR + 1)
    assert set(e.value.differences) == {"id_vector_sha256"}
    assert server.calls == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda receipts: receipts.engines.update(base="d" * 64), "stages.base.engine_sha256"),
        (lambda receipts: receipts.engines.update(sr="d" * 64), "stages.sr.engine_sha256"),
        (lambda receipts: setattr(receipts, "version", "2.0"), "id3pm"),
        (lambda receipts: setattr(receipts, "sr_threshold", 0.9), "stages.sr.options.dynamic_threshold"),
    ],
    ids=["64 px engine", "SR engine", "version", "option that a request cannot set"],
)
def test_what_the_server_would_do_differently_is_named_before_the_work(
    client: Any, server: FakeServer, receipts: Receipts, change: Any, field: str
) -> None:
    image = client.generate(VECTOR, 9, **OPTIONS)
    server.calls.clear()
    change(receipts)
    with pytest.raises(ReplayError, match=f"the server cannot make this image again: {field} is ") as caught:
        client.replay(image, VECTOR)
    assert set(caught.value.differences) == {field}
    assert [call.inputs["steps"].tolist() for call in server.calls] == [[[1]]]


def test_where_the_same_engine_came_from_is_no_difference(client: Any, server: FakeServer, receipts: Receipts) -> None:
    image = client.generate(VECTOR, 7, **OPTIONS)
    receipt = json.loads(json.dumps(image.receipt))
    receipt["stages"]["base"]["sources"] = {"engine": "oci://a.b/c@sha256:0"}
    assert client.replay(receipt, VECTOR).seed == 7


def test_other_pixels_under_the_same_receipt_are_noticed(
    client: Any, server: FakeServer, receipts: Receipts, tmp_path: Path
) -> None:
    image = client.generate(VECTOR, 9, **OPTIONS)
    image.save(tmp_path / "face.png")
    receipts.shade = 8
    with pytest.raises(ReplayError, match="the receipts are the same, the pixels differ") as caught:
        client.replay(tmp_path / "face.png", VECTOR)
    assert set(caught.value.differences) == {"pixels"}


def test_the_64_px_picture_carries_the_receipt_too_and_is_compared_with_its_like(
    client: Any, server: FakeServer, receipts: Receipts, tmp_path: Path
) -> None:
    image = client.generate(VECTOR, 9, **OPTIONS)
    (tmp_path / "small.png").write_bytes(png_of(image.image_64, image.receipt))
    assert client.replay(tmp_path / "small.png", VECTOR).receipt == image.receipt
    receipts.shade = 8
    with pytest.raises(ReplayError, match="the receipts are the same, the pixels differ"):
        client.replay(tmp_path / "small.png", VECTOR)


def test_a_server_that_changes_during_the_work_is_noticed(client: Any, server: FakeServer, receipts: Receipts) -> None:
    image = client.generate(VECTOR, 9, **OPTIONS)

    def answer(call: Call) -> Any:
        receipts.engines["sr"] = ("b" if call.inputs["steps"].tolist() == [[1]] else "d") * 64
        return receipts(call)

    server.answer = answer
    with pytest.raises(ReplayError, match=r"the server made another image: stages\.sr\.engine_sha256 is bbbb"):
        client.replay(image, VECTOR)


def test_vector_or_photograph_is_needed(client: Any, receipts: Receipts) -> None:
    receipt = client.generate(VECTOR, 9, **OPTIONS).receipt
    for arguments in ({}, {"embedding": VECTOR, "photo": PIXELS}):
        with pytest.raises(InvalidRequestError, match="only the hash of its ID vector: pass either embedding or photo"):
            client.replay(receipt, **arguments)


def test_what_is_no_receipt_is_refused(client: Any, server: FakeServer, receipts: Receipts, tmp_path: Path) -> None:
    good = client.generate(VECTOR, 9, **OPTIONS).receipt
    server.calls.clear()
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    (tmp_path / "text.txt").write_text("hello")
    stages = good["stages"]
    bad: list[tuple[Any, type[Exception], str]] = [
        (7, InvalidRequestError, "the receipt is a int: pass a dict"),
        ("{", InvalidRequestError, "the receipt: not JSON"),
        ({}, InvalidRequestError, "no receipt of schema 1"),
        ({**good, "schema": 2}, InvalidRequestError, "no receipt of schema 1"),
        ({**good, "seed": "x"}, InvalidRequestError, r"seed\[0\]='x': must be an integer"),
        ({**good, "stages": {"base": stages["base"]}}, ReplayError, "the receipt lacks stages.sr"),
        ({**good, "stages": {**stages, "sr": 1}}, InvalidRequestError, "stages.sr: must be a JSON object, not int"),
        (tmp_path / "plain.png", InvalidRequestError, "plain.png: carries no receipt"),
        (tmp_path / "text.txt", InvalidRequestError, "text.txt: neither a picture nor a receipt"),
        (tmp_path / "none.png", FileNotFoundError, "none.png"),
    ]
    for source, error, message in bad:
        with pytest.raises(error, match=message):
            client.replay(source, VECTOR)
    assert server.calls == []
