"""What callers pass: photographs of every kind, tensors, seeds or none, and names from other libraries."""

from __future__ import annotations

import array
import io
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from id3pm_client import AccessDeniedError, Call, Embedding, GeneratedImage, Image64, InvalidRequestError, Retry
from id3pm_client._seeds import parse_seeds
from id3pm_client._vectors import save_vectors
from id3pm_client.latent import mean_vector, slerp
from tests.client.conftest import FakeServer, echo

VECTOR = np.array([0.5, 1.5, 2.5, 3.5], np.float32)
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "portrait.png"
    Image.fromarray(PIXELS).save(path)
    return path


def mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as opened:
        return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(lambda path: path, id="pathlib"),
        pytest.param(lambda path: np.str_(path), id="numpy str"),
        pytest.param(lambda path: path.read_bytes(), id="bytes"),
        pytest.param(lambda path: np.bytes_(path.read_bytes()), id="numpy bytes"),
        pytest.param(lambda path: bytearray(path.read_bytes()), id="bytearray"),
        pytest.param(lambda path: memoryview(path.read_bytes()), id="memoryview"),
        pytest.param(lambda path: memoryview(bytes(2) + path.read_bytes())[2:], id="part of a memoryview"),
        pytest.param(lambda path: array.array("B", path.read_bytes()), id="array"),
        pytest.param(mapped, id="mmap"),
        pytest.param(lambda path: io.BytesIO(path.read_bytes()), id="BytesIO"),
        pytest.param(lambda path: path.open("rb"), id="file"),
    ],
)
def test_a_photo_that_is_a_file_travels_untouched(
    client: Any, server: FakeServer, file: Path, given: Callable[[Path], Any]
) -> None:
    for send in (client.embed, lambda photo: client.generate_from_photo(photo, 1)):
        photo = given(file)
        send(photo)
        sent = server.calls[-1].inputs["photo"][0, 0]
        assert type(sent) is bytes  # what tritonclient sends of another class is its repr
        assert sent == file.read_bytes()
        if hasattr(photo, "close"):
            photo.close()


def test_an_opened_file_is_read_once(client: Any, server: FakeServer, file: Path) -> None:
    """Also where a server that takes photographs alone gets it twice: to analyse, and with every seed."""

    def refuse(call: Call) -> dict[str, Any]:
        if call.model == "id3pm":
            raise AccessDeniedError("this token is for photographs")
        return echo(call)

    server.answer = refuse
    with file.open("rb") as opened:
        client.generate_from_photo(opened, [1, 2])
        assert not opened.closed
    photos = [call.inputs["photo"][0, 0] for call in server.calls if "photo" in call.inputs]
    assert photos == [file.read_bytes()] * 3


@pytest.mark.parametrize(
    ("photo", "message"),
    [
        (io.StringIO("text"), r"opened as text: open it with open\(path, 'rb'\)"),
        (io.BytesIO(b""), r"empty or read to its end: call seek\(0\) first"),
        (bytearray(), "the photo is empty"),
        ("a\0b", "no file can have this name"),
        ("\ud800", "no file can have this name"),
        ("https://example.org/portrait.jpg", "is a URL"),
        ("A" * 100_000, "this one has 100000 characters; decode base64 to bytes first"),
        (Embedding(VECTOR.copy(), np.zeros(15, np.float32), 1, "sface"), "the photo is an Embedding"),
    ],
)
def test_a_photo_that_is_none_is_named(client: Any, server: FakeServer, photo: Any, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        client.embed(photo)
    assert not server.calls


def tensors() -> list[Any]:
    torch = pytest.importorskip("torch")
    plain = torch.tensor(VECTOR)
    return [
        plain,
        plain.clone().requires_grad_(),
        plain.double().requires_grad_() * 1.0,
        plain.bfloat16(),
        plain.half().requires_grad_(),
        torch.nn.Parameter(plain.bfloat16()),
        plain[:, None].repeat(1, 2)[:, 0],  # a view with strides
    ]


def test_tensors_of_torch_are_vectors(client: Any, server: FakeServer) -> None:
    for tensor in tensors():
        client.generate(tensor, 1)
        np.testing.assert_array_equal(server.calls[-1].inputs["embedding"], VECTOR[None])
        list(client.stream(tensor, 1))
        np.testing.assert_array_equal(server.calls[-2].inputs["embedding"], VECTOR[None])
    both = tensors()[:4]
    assert len(client.generate(both, 1)) == 4, "a list of tensors"
    np.testing.assert_allclose(slerp(both[1], both[3], 0.5), slerp(VECTOR, VECTOR, 0.5), rtol=1e-6)
    np.testing.assert_allclose(mean_vector(both), mean_vector([VECTOR]), rtol=1e-6)


def test_tensors_of_torch_are_seeds_attributes_and_photographs(client: Any, server: FakeServer) -> None:
    torch = pytest.importorskip("torch")
    client.generate(VECTOR, torch.tensor([4, 5]), attributes=torch.zeros(3, requires_grad=True))
    assert server.seeds() == [4, 5]
    client.embed(torch.tensor(PIXELS))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(server.calls[-1].inputs["photo"][0, 0]))), PIXELS)


@pytest.mark.parametrize("made", ["sparse", "without data", "complex", "bool"])
def test_a_tensor_that_is_no_vector_is_named(client: Any, server: FakeServer, made: str) -> None:
    torch = pytest.importorskip("torch")
    tensor = {
        "sparse": lambda: torch.ones(4).to_sparse(),
        "without data": lambda: torch.ones(4, device="meta"),
        "complex": lambda: torch.ones(4, dtype=torch.complex64),
        "bool": lambda: torch.ones(4, dtype=torch.bool),
    }[made]()
    with pytest.raises(InvalidRequestError, match="^embedding"):
        client.generate(tensor, 1)
    assert not server.calls


@pytest.mark.parametrize(
    "photo",
    ["portrait.jpg", Path("portrait.jpg"), b"\xff\xd8", io.BytesIO(b"\xff\xd8"), Image.new("RGB", (4, 4)), PIXELS],
)
def test_a_photo_given_as_a_vector_is_sent_to_the_right_method(client: Any, server: FakeServer, photo: Any) -> None:
    for method in (client.generate, lambda *given: list(client.stream(*given))):
        with pytest.raises(InvalidRequestError, match="a photograph goes to generate_from_photo"):
            method(photo, 1)
    assert not server.calls


def test_without_a_seed_a_random_one_is_taken_and_reported(client: Any, server: FakeServer) -> None:
    made = client.generate(VECTOR)
    assert isinstance(made, GeneratedImage)
    assert made.seed == server.seeds()[0] == made.receipt["seed"]
    several = client.generate(np.stack([VECTOR] * 8))
    assert len({image.seed for image in several} | {made.seed}) == 9, "one of its own for each image"
    assert isinstance(client.generate_from_photo(PIXELS), GeneratedImage)
    assert next(iter(client.generate(VECTOR, attributes=[{"yaw": 1}, {"yaw": 2}]))).seed != made.seed
    for events in (client.stream(VECTOR), client.stream_from_photo(PIXELS)):
        assert list(events)[-1].seed == server.seeds_of("denoiser_64")[-1]
    assert all(0 <= seed < 2**32 for seed in server.seeds_of("id3pm"))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("num_inference_steps", "steps"),
        ("guidance", "guidance_scale"),
        ("cfg_scale", "guidance_scale"),
        ("scheduler", "sampler"),
        ("generator", "seed"),
        ("timeout", "timeout_s"),
        ("guidence_scale", "guidance_scale"),
        ("onimage", "on_image"),
    ],
)
def test_a_name_of_another_library_is_answered_with_ours(client: Any, name: str, meant: str) -> None:
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{name}': did you mean {meant}\\?"):
        client.generate(VECTOR, 1, **{name: 1})


def test_a_name_that_is_like_none_of_ours_gets_the_list(client: Any) -> None:
    with pytest.raises(TypeError, match="argument 'negative_prompt'; the options are"):
        client.generate(VECTOR, 1, negative_prompt="x")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sampler": "\ud800"}, r"sampler='\\ud800': this text is not valid Unicode"),
        ({"id_vector_model": "a\udfff"}, "id_vector_model=.*not valid Unicode"),
        ({"steps": 10**5000}, r"steps=\(int without a text\): must fit 32 bits"),
        ({"guidance_scale": 10**400}, "guidance_scale=1000.*: must be finite in float32"),
        ({"seed": 10**5000}, "seed=.*: must be between 0 and 2"),
        ({"attributes": {"yaw": "\ud800"}}, None),  # JSON can write it: the server refuses it by name
    ],
)
def test_a_value_that_has_no_bytes_is_named(
    client: Any, server: FakeServer, arguments: dict[str, Any], message: str | None
) -> None:
    if message is None:
        client.generate(VECTOR, 1, **arguments)
        return
    with pytest.raises(InvalidRequestError, match=message):
        client.generate(**{"embedding": VECTOR, "seed": 1, **arguments})
    assert not server.calls


def test_a_face_that_has_no_bytes_is_named(client: Any) -> None:
    with pytest.raises(InvalidRequestError, match="face=.*not valid Unicode"):
        client.embed(PIXELS, face="\ud800")


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"x": "a\nb"}, "must be printable ASCII"),
        ({"x": "é"}, "must be printable ASCII"),
        ({"x y": "a"}, "headers: the name 'x y'"),
        ({"x": 3}, "must be printable ASCII"),
    ],
)
def test_a_header_that_no_wire_carries_is_named(make_client: Any, headers: Any, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        make_client(headers=headers)


@pytest.mark.parametrize("url", ["\ud800:8001", "host:port", "host:0", "host:99999", "host name:8001", "host:\u0663"])
def test_an_address_that_is_none_is_named(make_client: Any, url: str) -> None:
    with pytest.raises(InvalidRequestError, match="url="):
        make_client(url=url)


@pytest.mark.parametrize(
    ("text", "seeds"), [("7", [7]), ("0-3", [0, 1, 2, 3]), ("5-5", [5]), ("9223372036854775807", [2**63 - 1])]
)
def test_a_command_line_names_seeds_and_ranges(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    "text", ["3-0", "-1", "a", "", "1.5", "0-100000", "0-", "1-2-3", "9223372036854775808", "1" * 5000, "\u0663"]
)
def test_a_seed_that_is_none_is_named(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="seed"):
        parse_seeds(text)


def test_biometric_vectors_are_not_printed(client: Any, server: FakeServer) -> None:
    face = client.embed(PIXELS)
    client.generate(face, 1)
    secret = Embedding(np.full(4, 0.123456, np.float32), face.detection.copy(), 1, "sface")
    for text in (repr(secret), str(secret), f"{secret}", repr([secret])):
        assert "0.1234" not in text
        assert "sface" in text
        assert "4" in text
    assert "array" not in repr(server.calls[-1]), "a request in a log"


def test_files_of_vectors_are_for_their_owner(tmp_path: Path) -> None:
    for name in ("v.npz", "v.npy"):
        path = tmp_path / name
        path.touch(mode=0o644)
        save_vectors(path, VECTOR, "sface")
        assert path.stat().st_mode & 0o777 == 0o600, "also where there was one that all could read"


def test_the_limit_of_a_stream_counts_the_photograph(make_client: Any, server: FakeServer) -> None:
    def late(call: Call) -> float:
        return 0.6 if call.model == "face_embedding" else 0.0

    server.delay_s = late
    events = list(make_client(retry=Retry(0)).stream_from_photo(PIXELS, 1, timeout_s=5.0))
    assert any(isinstance(event, Image64) for event in events)
    limits = {call.model: limit for call, limit in zip(server.calls, server.timeouts, strict=True)}
    assert limits["face_embedding"] == pytest.approx(5.0, abs=0.2)
    assert limits["denoiser_64"] < 4.5
    assert limits["super_resolution"] <= limits["denoiser_64"]


def test_on_face_hears_of_several_faces(client: Any, server: FakeServer) -> None:
    found: list[Embedding] = []
    made = client.generate_from_photo(PIXELS, 1, on_face=found.append)
    assert isinstance(made, GeneratedImage)
    assert [call.model for call in server.calls] == ["face_embedding", "id3pm"]
    list(client.stream_from_photo(PIXELS, 1, on_face=found.append))
    assert [face.faces for face in found] == [2, 2]
