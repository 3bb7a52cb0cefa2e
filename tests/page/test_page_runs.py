"""Runs, their history and the app_state, with an in-process service."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from id3pm.attributes import describe_fields
from id3pm.page.app_state import AppState
from id3pm.page.history import KEPT, History, make_again
from id3pm.page.people import Person, sample_files
from id3pm.page.runs import Run, Tile
from id3pm.page.user_messages import PageError
from id3pm_client import (
    ConnectionFailedError,
    Embedding,
    GeneratedImage,
    Image64,
    InvalidRequestError,
    OverloadedError,
    Progress,
    ReplayError,
)

DIM = 4
VECTOR = np.array([1, 2, 3, 4], dtype=np.float32)


def picture(size: int, shade: int = 0) -> Image.Image:
    return Image.new("RGB", (size, size), (shade, shade, shade))


class FakeClient:
    """Streams two steps of each stage; `fails` maps a seed to its error, `hangs` are seeds that never get on."""

    def __init__(self) -> None:
        self.fails: dict[int, Exception] = {}
        self.hangs: set[int] = set()
        self.let_go: list[int] = []
        self.requests: list[dict[str, Any]] = []
        self.embed_error: Exception | None = None
        self.replay_error: Exception | None = None
        self.ready = True
        self.attributes: list[dict[str, Any]] = []

    async def describe(self) -> dict[str, Any]:
        return {"bundle": "fake", "id_vector_model": "sface", "attributes": self.attributes}

    async def stream(self, vector: Any, seed: int, **options: Any) -> AsyncGenerator[Any, None]:
        self.requests.append({"seed": seed, **options})
        try:
            yield Progress("denoiser_64", 1, 2, picture(64, 1))
            await asyncio.sleep(0.15)
            if seed in self.hangs:
                await asyncio.sleep(60)
            if seed in self.fails:
                raise self.fails[seed]
            yield Image64(picture(64, 3), 0.1)
            yield Progress("super_resolution", 1, 2, picture(256, 4))
            yield GeneratedImage(picture(256, seed), picture(64, 3), seed, {"seed": seed}, "id", 0.2)
        except BaseException:
            self.let_go.append(seed)
            raise

    async def embed(self, photo: Any) -> Embedding:
        if self.embed_error is not None:
            raise self.embed_error
        return Embedding(VECTOR.copy(), np.arange(15, dtype=np.float32), 1, "sface")

    async def replay(self, image: GeneratedImage, vector: Any) -> GeneratedImage:
        if self.replay_error is not None:
            raise self.replay_error
        return image

    async def is_ready(self) -> bool:
        return self.ready

    async def close(self) -> None:
        pass


def tiles(*seeds: int) -> list[Tile]:
    return [Tile("person", f"seed {seed}", VECTOR, seed) for seed in seeds]


async def to_the_end(run: Run) -> int:
    looks = 0
    async for _ in run.watch():
        looks += 1
    return looks


def test_a_run_shows_previews_and_ends_with_the_likeness() -> None:
    run = Run(FakeClient(), tiles(7), {"steps": 2})  # type: ignore[arg-type]
    assert asyncio.run(to_the_end(run)) >= 2
    (tile,) = run.tiles
    assert run.ended and tile.result is not None and tile.progress == 1.0
    assert tile.likeness == pytest.approx(1.0)


def test_one_failure_is_shown_in_its_place_and_the_others_go_on() -> None:
    client = FakeClient()
    client.fails[2] = OverloadedError("the queue is full; retry after 2 s")
    run = Run(client, tiles(1, 2, 3), {})  # type: ignore[arg-type]
    asyncio.run(to_the_end(run))
    assert [tile.result is not None for tile in run.tiles] == [True, False, True]
    assert [notice.title for notice in run.notices] == ["The service is busy."]


def test_what_the_client_refuses_before_sending_is_shown_too() -> None:
    class Refusing(FakeClient):
        def stream(self, vector: Any, seed: int, **options: Any) -> Any:
            raise InvalidRequestError("attributes: this bundle has none")

    run = Run(Refusing(), tiles(1), {})  # type: ignore[arg-type]
    assert asyncio.run(asyncio.wait_for(to_the_end(run), 5)) == 1
    assert "this bundle has none" in run.notices[0].advice


def test_stop_returns_when_the_service_has_let_go() -> None:
    client = FakeClient()
    client.hangs = {1, 2}

    async def scene() -> Run:
        run = Run(client, tiles(1, 2, 3), {})  # type: ignore[arg-type]
        watching = asyncio.create_task(to_the_end(run))
        while not all(tile.stage for tile in run.tiles) or not run.tiles[2].ended:
            await asyncio.sleep(0.01)
        await run.stop()
        assert sorted(client.let_go) == [1, 2]
        await asyncio.wait_for(watching, 5)
        return run

    run = asyncio.run(scene())
    assert run.stopped and run.ended
    assert [tile.result is not None for tile in run.tiles] == [False, False, True]


def test_leaving_stops_the_work() -> None:
    client = FakeClient()
    client.hangs = {1}

    async def scene() -> None:
        run = Run(client, tiles(1), {})  # type: ignore[arg-type]
        async with contextlib.aclosing(run.watch()) as looks:
            async for _ in looks:
                break

    asyncio.run(scene())
    assert client.let_go == [1]


def test_a_result_without_a_face_says_so() -> None:
    client = FakeClient()
    client.embed_error = InvalidRequestError("no face was found in the 256x256 photo")
    run = Run(client, tiles(1), {})  # type: ignore[arg-type]
    asyncio.run(to_the_end(run))
    assert run.tiles[0].likeness is None and not run.notices


def finished(*seeds: int) -> Run:
    run = Run(FakeClient(), tiles(*seeds), {})  # type: ignore[arg-type]
    asyncio.run(to_the_end(run))
    return run


def test_the_history_has_the_newest_first_and_is_bounded() -> None:
    history = History()
    history.add(finished(1, 2))
    assert [entry.number for entry in history.entries] == [2, 1]
    for _ in range(KEPT // 4 + 1):
        history.add(finished(1, 2, 3, 4))
    assert len(history.entries) == KEPT
    with pytest.raises(PageError, match="Picture 1 is not here any more"):
        history.entry("1")
    assert history.entry(str(history.entries[0].number)) is history.entries[0]


def test_making_again_says_identical_or_what_differs() -> None:
    history, client = History(), FakeClient()
    (entry,) = history.add(finished(5))
    assert "identical" in asyncio.run(make_again(client, entry)).notice.title  # type: ignore[arg-type]
    client.replay_error = ReplayError("x", differences={"stages.base.engine_sha256": ("aa", "bb")})
    verdict = asyncio.run(make_again(client, entry))  # type: ignore[arg-type]
    assert verdict.differences == {"stages.base.engine_sha256": ("aa", "bb")}
    client.replay_error = ConnectionFailedError("connection refused")
    assert "cannot be reached" in asyncio.run(make_again(client, entry)).notice.title  # type: ignore[arg-type]


@pytest.fixture
def app_state() -> AppState:
    return AppState(FakeClient, Path("no such file"))  # type: ignore[arg-type]


def person(name: str, vector: np.ndarray) -> Person:
    return Person(name, vector, picture(8), 1, 0.9)


def test_there_are_eight_sample_people_without_names() -> None:
    files = sample_files()
    assert [file.name for file in files] == [f"{i:02d}.png" for i in range(1, 9)]
    for file in files:
        with Image.open(file) as image:
            marks = {"xmp", "XML:com.adobe.xmp"}  # that a model made it
            assert not image.info.keys() - marks - {"srgb", "gamma", "dpi"} and image.mode == "RGB"


def test_a_target_needs_somebody_and_names_the_blend(app_state: AppState) -> None:
    a, b = person("Ann", VECTOR), person("Bob", VECTOR[::-1].copy())
    with pytest.raises(PageError, match="No person is chosen"):
        app_state.target(None, b, 0.5, ())
    assert app_state.target(a, None, 0.5, ())[1] == "Ann"
    vector, label = app_state.target(a, b, 0.25, ())
    assert label == "75 % Ann, 25 % Bob" and np.isclose(np.linalg.norm(vector), 1.0)
    assert [tile.caption for tile in app_state.strip(a, b, 1)] == ["0 %", "25 %", "50 %", "75 %", "100 %"]
    with pytest.raises(PageError, match="no second person"):
        app_state.strip(a, None, 1)


def test_a_new_run_of_a_visitor_stops_the_earlier_one(app_state: AppState) -> None:
    async def scene() -> None:
        app_state.client.hangs = {1}  # type: ignore[attr-defined]
        first = await app_state.begin("visitor", tiles(1), {}, {}, 1)
        watching = asyncio.create_task(to_the_end(first))
        while not first.tiles[0].stage:
            await asyncio.sleep(0.01)
        second = await app_state.begin("visitor", tiles(2), {"preset": "fast"}, {"yaw": -20.0}, 1)
        await to_the_end(second)
        await asyncio.wait_for(watching, 5)
        assert first.stopped and not second.stopped
        sent = app_state.client.requests[-1]  # type: ignore[attr-defined]
        assert sent == {"seed": 2, "preset": "fast", "attributes": {"yaw": -20.0}, "preview_every": 1}

    asyncio.run(scene())


def test_a_request_says_what_the_served_bundle_needs(app_state: AppState) -> None:
    async def scene() -> None:
        client: Any = app_state.client
        client.attributes = describe_fields(3)
        await app_state.load()
        await to_the_end(await app_state.begin("visitor", tiles(1), {}, {"yaw": -20.0}, 1))
        sent = client.requests[-1]["attributes"]
        assert sent["yaw"] == -20 and sent["age"] == 30 and "gender" in sent
        await to_the_end(await app_state.begin("visitor", tiles(1), {}, {}, 1))
        assert "attributes" not in client.requests[-1]

    asyncio.run(scene())


def test_a_photograph_that_is_too_large_is_not_sent(app_state: AppState) -> None:
    with pytest.raises(PageError, match="too large: 33 MiB"):
        asyncio.run(app_state.uploaded_person(bytes(33 * 2**20)))


def test_a_sample_that_is_not_there_is_refused(app_state: AppState) -> None:
    for key in ("8", "-1", "x", None):
        with pytest.raises(PageError, match="no sample person"):
            asyncio.run(app_state.sample(key))


def test_a_page_that_was_opened_before_the_service_finds_it_later(app_state: AppState) -> None:
    async def scene() -> None:
        client: Any = app_state.client
        client.embed_error = ConnectionFailedError("connection refused")
        pill, problem, _ = await app_state.load()
        assert "id-away" in pill and problem is not None and "cannot be reached" in problem.title
        client.embed_error = None
        pill, problem, about = await app_state.refresh()
        assert "id-ready" in pill and problem is None and about is not None and app_state.similarity_scale is not None
        client.ready = False
        pill, problem, about = await app_state.refresh()
        assert "id-away" in pill and problem is not None and "takes no requests" in problem.title and about is None

    asyncio.run(scene())


def test_what_cancelled_calls_leave_in_grpcs_tasks_stays_out_of_the_terminal(caplog: pytest.LogCaptureFixture) -> None:
    left = type("ExecuteBatchError", (Exception,), {"__module__": "grpc._cython.cygrpc"})

    async def story() -> None:
        app_state = AppState(FakeClient, Path("/nonexistent"))  # type: ignore[arg-type]
        assert app_state.client is not None
        loop = asyncio.get_running_loop()
        loop.call_exception_handler({"message": "never retrieved", "exception": left("Failed grpc_call_start_batch")})
        assert caplog.records == []
        loop.call_exception_handler({"message": "never retrieved", "exception": ValueError("ours")})

    asyncio.run(story())
    assert [record.levelname for record in caplog.records] == ["ERROR"]
