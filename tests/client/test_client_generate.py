"""Requests and results of `generate`; for both clients."""

from __future__ import annotations

import json
import uuid
from typing import Any

import numpy as np
import pytest

from id3pm_client import Call, Embedding, GeneratedImage, InternalServerError, InvalidRequestError, Options
from id3pm_client import _contract as contract

VECTOR = np.array([0.5, -1.0, 2.0, 0.0])


def test_one_vector_and_one_seed_give_one_image(client: Any, server: Any) -> None:
    image = client.generate(VECTOR, 7)
    assert isinstance(image, GeneratedImage)
    assert (image.image.size, image.image.mode, image.image.getpixel((0, 0))) == ((256, 256), "RGB", (7, 7, 7))
    assert (image.image_64.size, image.image_64.getpixel((0, 0))) == ((64, 64), (7, 7, 7))
    assert image.seed == 7
    assert image.receipt == {"seed": 7, "first": 0.5}
    assert image.seconds >= 0.0
    (call,) = server.calls
    assert call.model == "id3pm"
    assert call.request_id == image.request_id
    assert uuid.UUID(call.request_id).version == 4
    assert call.inputs["embedding"].dtype == np.float32
    np.testing.assert_array_equal(call.inputs["embedding"], VECTOR[None].astype(np.float32))
    assert call.inputs["seed"].dtype == np.int64
    assert call.inputs["seed"].tolist() == [[7]]
    assert set(call.inputs) == {"embedding", "seed"}, "options that were not given are the server's defaults"


def test_the_64_px_image_is_not_asked_for_where_it_is_not_wanted(client: Any, server: Any) -> None:
    assert client.generate(VECTOR, 7, with_64=False).image_64 is None
    assert server.calls[0].outputs == ("image", "receipt")


def test_images_come_back_in_order_however_they_arrive(client: Any, server: Any) -> None:
    server.delay_s = lambda call: 0.03 - 0.01 * (int(call.inputs["seed"][0, 0]) % 4)
    images = client.generate(VECTOR, [3, 1, 2, 0, 2])
    assert [image.seed for image in images] == [3, 1, 2, 0, 2]
    assert [image.receipt["seed"] for image in images] == [3, 1, 2, 0, 2]
    assert len({image.request_id for image in images}) == 5


@pytest.mark.parametrize(
    ("embedding", "seed", "expected"),
    [
        (np.ones(4), [1, 2], [(1.0, 1), (1.0, 2)]),
        (np.ones((1, 4)), [1, 2], [(1.0, 1), (1.0, 2)]),
        ([[1] * 4, [2] * 4], 5, [(1.0, 5), (2.0, 5)]),
        ([[1] * 4, [2] * 4], [5], [(1.0, 5), (2.0, 5)]),
        ([[1] * 4, [2] * 4], np.array([5, 6]), [(1.0, 5), (2.0, 6)]),
        (np.ones((1, 4)), 5, [(1.0, 5)]),
        (np.ones(4), [5], [(1.0, 5)]),
        (np.ones(4), range(2, 4), [(1.0, 2), (1.0, 3)]),
        (np.ones(4), [], []),
        (np.ones((0, 4)), 5, []),
    ],
)
def test_one_goes_with_many(client: Any, embedding: Any, seed: Any, expected: list[Any]) -> None:
    images = client.generate(embedding, seed)
    assert [(image.receipt["first"], image.seed) for image in images] == expected


def test_attributes_may_differ_per_image(client: Any, server: Any) -> None:
    client.generate(VECTOR, [1, 2], attributes=[[0.0, 1.0], [2.0, 3.0]])
    sent = {int(call.inputs["seed"][0, 0]): call.inputs["attributes"] for call in server.calls}
    assert sent[1].tolist() == [[0.0, 1.0]]
    assert sent[2].tolist() == [[2.0, 3.0]]
    client.generate(VECTOR, 3, attributes=[4, 5])
    assert server.calls[-1].inputs["attributes"].tolist() == [[4.0, 5.0]]


def test_attributes_by_name_travel_as_json_and_may_differ_per_image(client: Any, server: Any) -> None:
    image = client.generate(VECTOR, 3, attributes={"yaw": np.float32(-20), "emotion": "happy"})
    assert image.seed == 3
    (text,) = server.calls[-1].inputs["attribute_values"][0]
    assert json.loads(text) == {"yaw": -20.0, "emotion": "happy"}
    assert "attributes" not in server.calls[-1].inputs
    images = client.generate(VECTOR, 3, attributes=[{"yaw": -20}, {"yaw": 20}])
    assert len(images) == 2
    sent = [json.loads(call.inputs["attribute_values"][0, 0])["yaw"] for call in server.calls[-2:]]
    assert sorted(sent) == [-20, 20]
    client.generate(VECTOR, 3, attribute_values="yaw=-20")
    assert server.calls[-1].inputs["attribute_values"].tolist() == [[b"yaw=-20"]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(embedding=np.ones((2, 4)), seed=[1, 2, 3]), "embedding has 2 rows and seed has 3"),
        (dict(embedding=np.ones(4), seed=[1, 2], attributes=np.ones((3, 2))), "attributes has 3 rows and seed has 2"),
        (dict(embedding=np.array([1.0, np.nan]), seed=1), r"embedding\[1\] is nan: every element must be finite"),
        (dict(embedding=np.array([[1.0, 2.0], [1e39, 2.0]]), seed=1), r"embedding\[1, 0\] is 1e\+39"),
        (dict(embedding=np.ones((1, 2, 3)), seed=1), r"shape \(1, 2, 3\): pass one vector \[D\] or several"),
        (dict(embedding=3.0, seed=1), r"shape \(\): pass one vector"),
        (dict(embedding=[], seed=1), "at least one element"),
        (dict(embedding=[[1.0], [1.0, 2.0]], seed=1), "not a rectangular array"),
        (dict(embedding=["a", "b"], seed=1), "dtype <U1: pass real numbers"),
        (dict(embedding=[True, False], seed=1), "dtype bool: pass real numbers"),
        (dict(embedding=np.ones(2, complex), seed=1), "dtype complex128: pass real numbers"),
        (dict(embedding=None, seed=1), "dtype object: pass real numbers"),
        (dict(seed=-1), r"seed=-1: must be between 0 and 2\*\*63 - 1"),
        (dict(seed=2**63), "seed=9223372036854775808: must be between"),
        (dict(seed=[1, -2]), r"seed\[1\]=-2"),
        (dict(seed=True), "seed=True: must be an integer, not bool"),
        (dict(seed=1.0), "seed=1.0: must be an integer, not float"),
        (dict(seed="1"), "seed='1': must be an integer, not str"),
        (dict(seed=np.ones(2)), r"seed\[0\]=.*1.0.*: must be an integer, not float64"),
        (dict(seed=[[1], [2]]), r"seed\[0\]=\[1\]: must be an integer, not list"),
        (dict(steps=2.5), "steps=2.5: must be an integer, not float"),
        (dict(steps=True), "steps=True: must be an integer, not bool"),
        (dict(steps=2**31), "steps=2147483648: must fit 32 bits"),
        (dict(guidance_scale=float("nan")), "guidance_scale=nan: must be finite"),
        (dict(guidance_scale=1e39), r"guidance_scale=1e\+39: must be finite"),
        (dict(guidance_scale="2"), "guidance_scale='2': must be a number, not str"),
        (dict(sampler=3), "sampler=3: must be a string, not int"),
        (dict(attributes=[np.inf]), r"attributes\[0\] is inf"),
        (dict(attributes={"yaw": np.inf}), "attributes=.*Out of range float"),
        (dict(attributes={"yaw": [1]}), r"attributes\['yaw'\]=\[1\]: pass a number or a word"),
        (dict(attributes=[{"yaw": 1}, [0.5]]), "attributes: a list among names with values"),
        (dict(timeout_s=0), "timeout_s=0: must be a number of seconds above 0 and up to 86400"),
        (dict(timeout_s=float("inf")), "timeout_s=inf: must be a number of seconds above 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_argument_is_named_and_nothing_is_sent(
    client: Any, server: Any, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message) as caught:
        client.generate(**{"embedding": VECTOR, "seed": 1, **arguments})
    assert isinstance(caught.value, ValueError)
    assert server.calls == []


def test_every_option_travels_as_a_tensor_of_its_type(client: Any, server: Any) -> None:
    options: dict[str, Any] = {
        "preset": "fast",
        "sampler": "ddim",
        "steps": np.int64(10),
        "spacing": "logsnr",
        "guidance_scale": 3,
        "guidance_low": 0,
        "guidance_high": 900,
        "dynamic_threshold": np.float32(0.5),
        "eta": 0.25,
        "attributes": [1, 2, 3],
        "attribute_values": "yaw=-20",
        "sr_sampler": "ddpm",
        "sr_steps": 5,
        "sr_spacing": "uniform",
        "sr_eta": 0.0,
        "sr_consistency": 1.0,
        "priority": 2,
        "id_vector_model": "sface",
    }
    assert set(options) == set(contract.OPTIONS) == set(Options.__annotations__)
    client.generate(VECTOR, 1, **options)
    sent = server.calls[0].inputs
    for name, option in contract.OPTIONS.items():
        assert sent[name].dtype == contract.DTYPES[option.datatype], name
        assert sent[name].shape == (1, 3 if name == "attributes" else 1), name
    assert sent["sampler"].tolist() == [[b"ddim"]]
    assert sent["steps"].tolist() == [[10]]
    assert sent["guidance_scale"].tolist() == [[3.0]]
    assert sent["priority"].tolist() == [[2]]


def embedding_of(model: str) -> Embedding:
    return Embedding(np.arange(4, dtype=np.float32), np.zeros(15, np.float32), 1, model)


@pytest.mark.parametrize("embedding", [embedding_of("facenet:x"), [embedding_of("facenet:x")] * 2])
def test_what_embed_gave_says_which_model_it_is_of(client: Any, server: Any, embedding: Any) -> None:
    client.generate(embedding, 1)
    assert [call.inputs["id_vector_model"].tolist() for call in server.calls] == [[[b"facenet:x"]]] * len(server.calls)
    server.calls.clear()
    list(client.stream(embedding if isinstance(embedding, Embedding) else embedding[0], 1))
    assert server.calls[0].inputs["id_vector_model"].tolist() == [[b"facenet:x"]]
    assert "id_vector_model" not in server.calls[1].inputs, "super-resolution takes no vector"


def test_the_callers_word_on_the_model_counts_and_plain_arrays_say_nothing(client: Any, server: Any) -> None:
    client.generate(embedding_of("sface"), 1, id_vector_model="other")
    client.generate(embedding_of("sface").vector, 1)
    assert server.calls[0].inputs["id_vector_model"].tolist() == [[b"other"]]
    assert "id_vector_model" not in server.calls[1].inputs


def test_vectors_of_two_models_are_refused_before_they_are_sent(client: Any, server: Any) -> None:
    with pytest.raises(InvalidRequestError, match="vectors of facenet:x, sface: pass those of one FR model"):
        client.generate([embedding_of("sface"), embedding_of("facenet:x")], 1)
    assert server.calls == []


def test_none_leaves_an_option_to_the_server(client: Any, server: Any) -> None:
    client.generate(VECTOR, 1, **dict.fromkeys(contract.OPTIONS))
    assert set(server.calls[0].inputs) == {"embedding", "seed"}


def test_an_unknown_option_is_a_type_error_as_in_python(client: Any, server: Any) -> None:
    with pytest.raises(TypeError, match=r"argument 'step': did you mean steps\?; the options are .*preset, sampler"):
        client.generate(VECTOR, 1, step=5)
    assert server.calls == []


def test_on_image_sees_each_image_as_it_arrives(client: Any, server: Any) -> None:
    server.delay_s = lambda call: 0.08 if call.inputs["seed"][0, 0] == 1 else 0.0
    seen: list[tuple[int, int]] = []
    images = client.generate(VECTOR, [1, 2], on_image=lambda position, image: seen.append((position, image.seed)))
    assert seen == [(1, 2), (0, 1)]
    assert [image.seed for image in images] == [1, 2]
    assert images[0].seconds >= 0.08


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": None}, "answered nothing as image"),
        ({"image": np.zeros((1, 256, 256), np.uint8)}, r"image of shape \(256, 256\): expected \[S, S, 3\]"),
        ({"image": np.zeros((1, 256, 256, 3), np.float32)}, "answered float32"),
        ({"image_64": np.zeros((2, 64, 64, 3), np.uint8)}, "expected one row of uint8"),
        ({"receipt": np.array([[b"{"]], np.object_)}, "receipt is not one JSON object"),
        ({"receipt": np.array([[b"[]"]], np.object_)}, "receipt is not one JSON object"),
    ],
)
def test_an_answer_that_breaks_the_contract_is_the_servers_fault(
    client: Any, server: Any, change: dict[str, Any], message: str
) -> None:
    good = server.answer

    def answer(call: Call) -> dict[str, Any]:
        return {name: array for name, array in {**good(call), **change}.items() if array is not None}

    server.answer = answer
    with pytest.raises(InternalServerError, match=message):
        client.generate(VECTOR, 1)
