"""The client and the request registry of the real stages: watching and joining requests."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from services import LONG, idle, same
from waiting import wait_until

from id3pm_client import AsyncClient, Client, GeneratedImage, Image64, InvalidRequestError, Progress, Retry
from id3pm_client._cli import main

pytestmark = pytest.mark.server
PHOTO = Path(__file__).parents[2] / "demo" / "astronaut.jpg"
# The stand-in networks take 1 ms a step: with so many, some are seen.
OPTIONS: dict[str, Any] = {"steps": 400, "sampler": "ddim", "eta": 0.5, "sr_steps": 30, "sr_sampler": "ddpm"}
STAGES = ("denoiser_64", "super_resolution")


def check(events: list[Any]) -> GeneratedImage:
    """What every stream promises; returns the image."""
    image = events[-1]
    assert isinstance(image, GeneratedImage) and image.image_64 is not None
    (small,) = (position for position, event in enumerate(events) if isinstance(event, Image64))
    assert events[small].image.tobytes() == image.image_64.tobytes()
    before, after = events[:small], events[small + 1 : -1]
    for part, stage, size in ((before, STAGES[0], 64), (after, STAGES[1], 256)):
        assert part, f"progress of {stage} was seen"
        assert {event.stage for event in part} == {stage}
        steps = [event.step for event in part]
        assert steps == sorted(set(steps)) and steps[-1] <= part[0].steps
        assert all(event.preview.size == (size, size) for event in part if event.preview is not None)
    return image


def test_a_stream_ends_with_the_image_of_generate(client: Client, embedding: np.ndarray) -> None:
    events = list(client.stream(embedding, 5, **OPTIONS))
    assert same(check(events), client.generate(embedding, 5, **OPTIONS))
    progress = [event for event in events if isinstance(event, Progress)]
    assert {(event.stage, event.steps) for event in progress} == {(STAGES[0], OPTIONS["steps"]), (STAGES[1], 30)}
    assert any(event.preview is not None for event in progress)


def test_progress_and_previews_come_while_the_work_goes_on(client: Client, embedding: np.ndarray) -> None:
    """Beside the work of another stream, which is left when this one is done."""
    with closing(client.stream(-embedding, 1, preview_every=0, **LONG[STAGES[1]])) as other:
        next(event for event in other if isinstance(event, Progress) and event.stage == STAGES[1])
        events = list(client.stream(embedding, 5, preview_every=10, **{**OPTIONS, "sr_steps": 40}))
    told = [event for event in events if isinstance(event, Progress) and event.stage == STAGES[1]]
    assert len(told) >= 4, "of 40 steps"
    assert any(event.preview is not None for event in told)
    check(events)
    wait_until(lambda: idle(client), 2.0)


def test_async_streams_of_photographs_run_side_by_side(server: Any, client: Client) -> None:
    async def stream(asynchronous: AsyncClient, seed: int) -> list[Any]:
        return [event async for event in asynchronous.stream_from_photo(PHOTO, seed, **OPTIONS)]

    async def several() -> list[list[Any]]:
        async with AsyncClient(server.grpc_url, timeout_s=60) as asynchronous:
            return await asyncio.gather(*(stream(asynchronous, seed) for seed in range(2)))

    for seed, events in enumerate(asyncio.run(several())):
        assert same(check(events), client.generate_from_photo(PHOTO, seed, **OPTIONS))


@pytest.mark.parametrize("stage", STAGES)
def test_leaving_a_stream_stops_the_work_of_either_stage(client: Client, embedding: np.ndarray, stage: str) -> None:
    for event in client.stream(embedding, 5, **LONG[stage]):
        if isinstance(event, Progress) and event.stage == stage and event.step >= 2:
            break
    wait_until(lambda: idle(client), 1.0)


@pytest.mark.parametrize("stage", STAGES)
def test_leaving_an_async_stream_does_so_too(server: Any, client: Client, embedding: np.ndarray, stage: str) -> None:
    async def leave() -> None:
        async with AsyncClient(server.grpc_url) as asynchronous:
            async with aclosing(asynchronous.stream(embedding, 5, **LONG[stage])) as events:
                async for event in events:
                    if isinstance(event, Progress) and event.stage == stage and event.step >= 2:
                        break

    asyncio.run(leave())
    wait_until(lambda: idle(client), 1.0)


def test_what_only_the_server_knows_is_raised_by_the_stream(client: Client, embedding: np.ndarray) -> None:
    with pytest.raises(InvalidRequestError, match="^sr_steps=0: must be between 1 and 1000$"):
        list(client.stream(embedding, 5, sr_steps=0))
    with pytest.raises(InvalidRequestError, match="7"):
        list(client.stream(np.ones(7), 5))


def test_the_command_line_writes_previews(
    server: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], embedding: np.ndarray
) -> None:
    np.save(tmp_path / "vector.npy", embedding)
    source = ["--embedding", str(tmp_path / "vector.npy")]
    arguments = ["stream", *source, "--seed", "5", "--steps", "400", "--preview-every", "40", "--out", str(tmp_path)]
    assert main(["--url", server.grpc_url, *arguments]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.split()]
    assert paths[-1] == tmp_path / "seed-5.png"
    assert tmp_path / "seed-5_64.png" in paths
    assert 1 <= sum("denoiser_64" in path.name for path in paths) <= 10
    for path in paths:
        with Image.open(path) as image:
            assert image.size in {(64, 64), (256, 256)}
    assert (
        main(["--url", server.grpc_url, "replay", str(paths[-1]), *source, "--out", str(tmp_path / "again.png")]) == 0
    )
    assert (tmp_path / "again.png").read_bytes() == paths[-1].read_bytes()


class Cut:
    """A way to the server that can be cut like a cable: all its connections break, new ones go through."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            self._open += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            return

    def cut(self) -> None:
        for end in self._open:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            end.close()
        self._open.clear()

    def close(self) -> None:
        self._listener.close()
        self.cut()


def test_a_cut_connection_loses_nothing_and_does_nothing_twice(
    server: Any, client: Client, wire: Any, embedding: np.ndarray
) -> None:
    options: dict[str, Any] = {"steps": 500, "sampler": "ddpm", "sr_steps": 2}
    cable = Cut(server.grpc_url)

    def steps() -> float:
        return sum(value for name, value in wire.metrics().items() if "steps_total" in name and "denoiser" in name)

    def cut_when_busy() -> None:
        wait_until(lambda: client.ping()["denoiser_64"]["active"] >= 1, 10)
        cable.cut()

    before = steps()
    cutter = threading.Thread(target=cut_when_busy)
    with Client(cable.url, timeout_s=60, retry=Retry(first_delay_s=0.05)) as through:
        cutter.start()
        image = through.generate(embedding, 9, **options)
        cutter.join()
    cable.close()
    assert image.seed == 9
    assert steps() - before == 500, "the second attempt joined the first"
    assert same(image, client.generate(embedding, 9, **options))
