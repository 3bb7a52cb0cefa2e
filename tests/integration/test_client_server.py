"""The client and the real server together."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from services import LONG, idle, same
from waiting import wait_until

from id3pm_client import (
    AsyncClient,
    Call,
    CancelledRequestError,
    Client,
    DeadlineExceededError,
    GeneratedImage,
    InvalidRequestError,
    Retry,
)
from id3pm_client._cli import main
from id3pm_client._connection import Connection
from id3pm_client._grpc import GrpcTransport

pytestmark = pytest.mark.server
PHOTO = Path(__file__).parents[2] / "demo" / "astronaut.jpg"
QUICK: dict[str, Any] = {"steps": 4, "sampler": "dpmpp_2m", "sr_steps": 2, "sr_sampler": "ddim"}


def test_an_image_is_the_same_alone_and_in_a_batch(client: Client, embedding: np.ndarray) -> None:
    vectors = np.stack([embedding, -embedding, embedding[::-1]])
    together = client.generate(vectors, [3, 1, 3], **QUICK)
    assert [image.seed for image in together] == [3, 1, 3]
    for vector, image in zip(vectors, together, strict=True):
        assert same(image, client.generate(vector, image.seed, **QUICK))
    assert not same(together[0], together[2]), "another ID vector is another face"


def test_async_client_gets_the_images_that_client_gets(server: Any, client: Client, embedding: np.ndarray) -> None:
    async def generate() -> list[GeneratedImage]:
        async with AsyncClient(server.grpc_url) as asynchronous:
            return await asynchronous.generate(embedding, range(3), **QUICK)

    pairs = zip(client.generate(embedding, range(3), **QUICK), asyncio.run(generate()), strict=True)
    assert all(same(first, second) for first, second in pairs)


def test_the_64_px_image_may_stay_on_the_server(client: Client, embedding: np.ndarray) -> None:
    image = client.generate(embedding, 3, with_64=False, **QUICK)
    assert image.image_64 is None
    assert image.image.tobytes() == client.generate(embedding, 3, **QUICK).image.tobytes()


def test_the_receipt_tells_what_was_asked_for(client: Client, embedding: np.ndarray, tmp_path: Path) -> None:
    image = client.generate(embedding, 5, guidance_scale=1.5, **QUICK)
    assert image.receipt["seed"] == 5
    base = image.receipt["stages"]["base"]["options"]
    assert (base["steps"], base["sampler"], base["guidance_scale"]) == (4, "dpmpp_2m", 1.5)
    assert image.receipt["stages"]["sr"]["options"]["steps"] == 2
    image.save(tmp_path / "face.png")
    with Image.open(tmp_path / "face.png") as saved:
        assert json.loads(saved.text["id3pm"]) == image.receipt


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "^steps=0: must be between 1 and 1000$"),
        ({"sampler": "euler"}, "^sampler='euler': choose one of ddpm, ddim, dpmpp_2m, student$"),
        ({"embedding": np.ones(7)}, "7"),
        ({"id_vector_model": "facenet:x"}, "^id_vector_model='facenet:x': this server's bundle takes .* of 'sface'"),
    ],
)
def test_the_servers_rules_come_through_as_typed_errors(
    client: Client, embedding: np.ndarray, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message) as caught:
        client.generate(**{"embedding": embedding, "seed": 1, **QUICK, **arguments})
    assert "ensemble" not in str(caught.value)
    assert "/" not in str(caught.value), "no paths of the server"
    assert client.generate(embedding, 1, **QUICK).seed == 1, "the server keeps serving"


def test_a_real_photograph_becomes_an_id_vector_and_faces(client: Client) -> None:
    face = client.embed(PHOTO)
    assert face.vector.shape == (128,)
    assert face.faces == 1
    assert face.score > 0.7
    assert face.id_vector_model == "sface"
    x, y, width, height = face.box
    inside = (face.landmarks > (x, y)).all() and (face.landmarks < (x + width, y + height)).all()
    assert inside, "eyes, nose and mouth lie in the face"

    one = client.generate_from_photo(PHOTO, 4, **QUICK)
    several = client.generate_from_photo(PHOTO.read_bytes(), [4, 5], **QUICK)
    assert same(one, several[0])
    assert same(one, client.generate(face, 4, **QUICK))


def test_a_picture_and_an_array_are_photographs_too(client: Client) -> None:
    with Image.open(PHOTO) as picture:
        vectors = [client.embed(photo).vector for photo in (picture, np.asarray(picture), PHOTO)]
    assert np.array_equal(vectors[0], vectors[1])
    assert float(vectors[0] @ vectors[2]) / float(np.linalg.norm(vectors[0]) * np.linalg.norm(vectors[2])) > 0.999


@pytest.mark.parametrize(
    ("photo", "code"),
    [
        (PHOTO.read_bytes()[:2000], "damaged_image"),
        (b"GIF89a", "unsupported_image"),
        (np.full((200, 200, 3), 128, np.uint8), "no_face"),
    ],
    ids=["truncated", "not a photo", "no face"],
)
def test_a_bad_photograph_is_an_invalid_request(client: Client, photo: Any, code: str) -> None:
    for ask in (lambda: client.embed(photo), lambda: client.generate_from_photo(photo, 1)):
        with pytest.raises(InvalidRequestError) as caught:
            ask()
        assert caught.value.code == code


@pytest.mark.parametrize("stage", LONG)
def test_a_deadline_stops_the_work_of_either_stage(client: Client, embedding: np.ndarray, stage: str) -> None:
    with pytest.raises(DeadlineExceededError, match="no answer within 0.4 s"):
        client.generate(embedding, 1, timeout_s=0.4, **LONG[stage])
    wait_until(lambda: idle(client), 0.5)


@pytest.mark.parametrize("stage", LONG)
def test_a_cancelled_task_stops_the_work_of_either_stage(
    server: Any, client: Client, embedding: np.ndarray, stage: str
) -> None:
    async def cancel_when_busy() -> None:
        async with AsyncClient(server.grpc_url) as asynchronous:
            task = asyncio.create_task(asynchronous.generate(embedding, [1, 2], **LONG[stage]))
            while not (await asynchronous.ping())[stage]["active"]:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(cancel_when_busy())
    wait_until(lambda: idle(client), 0.5)


class Spy:
    """A transport that remembers under which id each seed was sent."""

    def __init__(self, server: Any) -> None:
        self._wire = GrpcTransport(Connection(server.grpc_url))
        self.ids: dict[int, str] = {}

    def submit(self, call: Call, timeout_s: float, on_done: Callable[[Any], None]) -> Callable[[], None]:
        if "seed" in call.inputs:
            self.ids[int(call.inputs["seed"][0, 0])] = call.request_id
        return self._wire.submit(call, timeout_s, on_done)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wire, name)


def test_what_another_cancels_is_told_and_stops_its_neighbours(
    server: Any, client: Client, wire: Any, embedding: np.ndarray
) -> None:
    spy = Spy(server)

    def cancel_one() -> None:
        wait_until(lambda: client.ping()["denoiser_64"]["in_flight"] == 2, 10)
        assert wire.control("denoiser_64", "cancel", spy.ids[8])["found"]

    with Client(transport=spy) as other, ThreadPoolExecutor(1) as pool:
        cancelling = pool.submit(cancel_one)
        with pytest.raises(CancelledRequestError, match=r"^image 1 \(seed 8\): the request was cancelled$") as caught:
            other.generate(embedding, [7, 8], **LONG["denoiser_64"])
        cancelling.result()
    assert caught.value.index == 1
    assert caught.value.request_id == spy.ids[8]
    wait_until(lambda: idle(client), 0.5)


def test_a_batch_over_several_servers_is_the_same_though_one_is_down(
    server: Any, client: Client, embedding: np.ndarray
) -> None:
    port = server.grpc_url.rpartition(":")[2]  # two names of one server are two servers to the client
    with Client(["127.0.0.1:9", server.grpc_url, f"localhost:{port}"], timeout_s=60) as several:
        images = several.generate(embedding, range(6), **QUICK)
        assert several.is_ready()
    pairs = zip(images, client.generate(embedding, range(6), **QUICK), strict=True)
    assert all(same(first, second) for first, second in pairs)


def test_bench_runs(server: Any, embedding: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "vector.npy", embedding)
    arguments = ["bench", "--embedding", str(tmp_path / "vector.npy"), "--images", "6", "--concurrency", "3", "--json"]
    assert main(["--url", server.grpc_url, *arguments, "--steps", "2", "--sr-steps", "1"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["images"], result["errors"]) == (6, {})
    assert result["images_per_s"] > 0


def test_readiness_and_ping(client: Client) -> None:
    assert client.is_ready()
    info = client.server_info()
    assert info.ready
    assert all(info.models.values())
    assert all(status["draining"] is False for status in client.ping().values())


def test_the_command_line_makes_pictures_of_a_photograph(
    server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--steps", "2", "--sr-steps", "1", "--with-64"]
    arguments = ["generate", "--photo", str(PHOTO), "--seed", "1", "2", "--out", str(tmp_path), *options]
    assert main(["--url", server.grpc_url, *arguments]) == 0
    paths = capsys.readouterr().out.split()
    assert len(paths) == 2
    for path in paths:
        with Image.open(path) as image:
            assert image.size == (256, 256)
    assert main(["--url", server.grpc_url, *arguments, "--steps", "0", "--overwrite"]) == 2
    assert "steps=0: must be between 1 and 1000" in capsys.readouterr().err


def test_a_deadline_that_no_server_can_meet_is_refused_once(client: Client, wire: Any, embedding: np.ndarray) -> None:
    rejected = 'id3pm_errors_total{code="UNAVAILABLE",model="denoiser_64"}'
    before = wire.metrics().get(rejected, 0)
    with pytest.raises(DeadlineExceededError, match="no answer within 0.2 s; the server: the deadline cannot be met"):
        client.generate(embedding, 1, timeout_s=0.2, **LONG["denoiser_64"])
    wait_until(lambda: wire.metrics().get(rejected, 0) > before, 2)
    assert wire.metrics()[rejected] == before + 1, "not sent again"


def test_proxies_of_the_environment_do_not_stand_between(
    server: Any, embedding: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with Client(server.grpc_url, retry=Retry(0), timeout_s=60) as direct:
        assert direct.generate(embedding, 1, steps=2, sr_steps=1).seed == 1


def test_without_a_seed_the_image_and_its_receipt_name_the_one_that_was_taken(
    client: Client, embedding: np.ndarray
) -> None:
    made = client.generate(embedding, steps=2, sr_steps=1)
    assert made.receipt["seed"] == made.seed
    again = client.generate(embedding, made.seed, steps=2, sr_steps=1)
    assert again.image.tobytes() == made.image.tobytes()


def test_the_steps_of_a_long_image_are_shown(
    server: Any, embedding: np.ndarray, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr("id3pm_client._bar._EVERY_S", 0.0)
    np.save(tmp_path / "vector.npy", embedding)
    arguments = ["generate", "--embedding", str(tmp_path / "vector.npy"), "--seed", "1", "--out", str(tmp_path)]
    assert main(["--url", server.grpc_url, *arguments, "--steps", "1000", "--sr-steps", "100"]) == 0
    assert "/1000 steps of denoiser_64" in capsys.readouterr().err
