"""Server-sent events on the wire: framing, heartbeats, errors, and callers that go away."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from fake_stages import PNG, FakeStages

from id3pm.serving.gateway import sse as event_stream
from id3pm.serving.gateway.in_flight import InFlight
from id3pm.serving.gateway.metrics import Counters
from id3pm.serving.gateway.origin import Origin
from id3pm.serving.gateway.request import parse_object
from id3pm.serving.gateway.sse import Events, EventStream
from id3pm.serving.protocol.status import RefusedError

BODY = {"embedding": [0.1] * 128, "seed": 1}
Play = Callable[[aiohttp.ClientSession, str, FakeStages, Counters], Awaitable[None]]


def served(play: Play, heartbeat_s: float = 10.0, write_s: float = 10.0, **stages_of: Any) -> None:
    """Runs `play` against a server whose only path streams from fake stages."""

    async def run() -> None:
        stages, counters = FakeStages(**stages_of), Counters()

        class OneUpstream:
            def get(self) -> FakeStages:
                return stages

        in_flight = InFlight(counters)
        events = EventStream(OneUpstream(), in_flight, heartbeat_s, write_s)  # type: ignore[arg-type]

        async def handler(request: web.Request) -> web.StreamResponse:
            try:
                document = parse_object(await request.read())
                return await events.answer(request, Origin("a", "b"), "id3pm", document)
            except RefusedError as refusal:
                return web.json_response({"error": str(refusal)}, status=refusal.status)

        app = web.Application()
        app.router.add_post("/", handler)
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
            await play(session, f"http://{host}:{port}/", stages, counters)
        await runner.cleanup()
        await in_flight.close()

    asyncio.run(run())


def parsed(text: str) -> list[tuple[str, Any]]:
    """Events as a browser's parser sees them: name and data; comments are dropped."""
    events = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            events.append((fields["event"], json.loads(fields["data"])))
    return events


def test_a_browser_reads_progress_and_images() -> None:
    async def play(session: aiohttp.ClientSession, url: str, stages: FakeStages, counters: Counters) -> None:
        async with session.post(url, json={**BODY, "id": "mine"}) as response:
            assert response.status == 200
            assert response.headers["Content-Type"] == "text/event-stream"
            assert response.headers["X-Request-Id"] == "mine"
            events = parsed(await response.text())
        assert [name for name, _ in events] == ["progress"] * 4 + ["image_64"] + ["progress"] * 4 + ["image"]
        assert events[-1][1]["png"] == PNG
        assert (counters.in_flight, counters.disconnects) == (0, 0)

    served(play)


def test_events_arrive_while_the_work_goes_on() -> None:
    async def play(session: aiohttp.ClientSession, url: str, stages: FakeStages, counters: Counters) -> None:
        async with session.post(url, json=BODY) as response:
            first = await response.content.readline()
            assert first == b"event: progress\n"
            assert counters.in_flight == 1
            await response.text()

    served(play, step_s=0.1)


def test_a_silent_stream_gives_signs_of_life() -> None:
    async def play(session: aiohttp.ClientSession, url: str, stages: FakeStages, counters: Counters) -> None:
        async with session.post(url, json=BODY) as response:
            text = await response.text()
        assert text.startswith(":"), "before the first event, too"
        assert parsed(text)[-1][0] == "image"

    served(play, heartbeat_s=0.05, step_s=0.3, steps=1)


def test_what_fails_before_the_first_event_is_a_plain_http_error() -> None:
    async def play(session: aiohttp.ClientSession, url: str, stages: FakeStages, counters: Counters) -> None:
        for body, status, words in (
            (b"{", 400, "not JSON"),
            (b"{}", 400, "embedding"),
            (json.dumps(BODY).encode(), 503, "retry after"),
        ):
            async with session.post(url, data=body) as response:
                assert response.status == status
                assert words in (await response.json())["error"]
        assert counters.in_flight == 0

    served(play, denoiser_64=RefusedError("unavailable", "9 requests wait: retry after 2 s"))


def test_a_deadline_that_passes_between_the_stages_is_told_and_the_second_is_not_asked() -> None:
    async def play(session: aiohttp.ClientSession, url: str, stages: FakeStages, counters: Counters) -> None:
        async with session.post(url, json={**BODY, "timeout": 500_000}) as response:
            told = parsed(await response.text())
        assert told[-2][0] == "image_64"
        assert told[-1][0] == "error"
        assert told[-1][1]["code"] == "deadline_exceeded"
        assert "super_resolution" not in stages.messages

    served(play, step_s=0.2)


def test_what_fails_later_is_an_event_and_the_last_one() -> None:
    async def play(session: aiohttp.ClientSession, url: str, stages: FakeStages, counters: Counters) -> None:
        async with session.post(url, json=BODY) as response:
            events = parsed(await response.text())
        told = {"error": "being restarted: retry after 1 s", "status": "UNAVAILABLE", "code": "unavailable"}
        assert events[-1] == ("error", {**told, "retry_after_s": 1.0})
        assert [name for name, _ in events].count("image") == 0

    served(play, super_resolution=RefusedError("unavailable", "being restarted: retry after 1 s", retry_after_s=1.0))


@pytest.mark.parametrize("after", [1, 11])
def test_a_browser_that_leaves_cancels_the_request(after: int) -> None:
    """In the first stage and in the second one."""

    async def play(session: aiohttp.ClientSession, url: str, stages: FakeStages, counters: Counters) -> None:
        async with session.post(url, json={**BODY, "id": "mine"}) as response:
            for _ in range(after):
                await response.content.readline()
            response.close()
        for _ in range(200):
            if stages.cancelled and not stages._at:
                break
            await asyncio.sleep(0.02)
        assert set(stages.cancelled) == {"mine"}
        assert (counters.in_flight, counters.disconnects) == (0, 1)

    served(play, step_s=0.1, steps=3)


def test_progress_that_nobody_has_read_is_merged_and_nothing_else_is_lost() -> None:
    async def play() -> list[Any]:
        events = Events()
        events.put(("progress", {"stage": "a", "step": 0}))
        events.put(("progress", {"stage": "a", "step": 1, "preview_png": "1"}))
        events.put(("progress", {"stage": "a", "step": 2}))
        first = await events.get()
        for event in (
            ("progress", {"step": 3}),
            ("image_64", {}),
            ("progress", {"step": 0}),
            ("progress", {"step": 1}),
        ):
            events.put(event)
        events.put("end")
        return [first, *[await events.get() for _ in range(4)]]

    assert asyncio.run(play()) == [
        ("progress", {"stage": "a", "step": 2, "preview_png": "1"}),
        ("progress", {"step": 3}),
        ("image_64", {}),
        ("progress", {"step": 1}),
        "end",
    ]


def stalled_reader(url: str) -> socket.socket:
    """Asks for a stream and reads nothing of it."""
    host, port = url.removeprefix("http://").rstrip("/").split(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    body = json.dumps({**BODY, "id": "mine"}).encode()
    connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    return connection


def test_a_reader_that_stalls_holds_a_few_events_and_not_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fake_stages.PREVIEW", "x" * 100_000)
    most = 0

    class Watched(Events):
        def put(self, event: Any) -> None:
            nonlocal most
            super().put(event)
            most = max(most, len(json.dumps([event for event in self.waiting if isinstance(event, tuple)])))

    monkeypatch.setattr(event_stream, "Events", Watched)

    async def play(session: aiohttp.ClientSession, url: str, stages: FakeStages, counters: Counters) -> None:
        reader = stalled_reader(url)
        while "super_resolution" not in stages.messages or stages._at or counters.in_flight:
            await asyncio.sleep(0.05)
        assert len(stages.watches) > 300, "of 100 KB each"
        reader.close()

    served(play, steps=200, step_s=0.005)
    assert 0 < most < 400_000


def test_a_reader_that_takes_nothing_counts_as_gone() -> None:
    async def play(session: aiohttp.ClientSession, url: str, stages: FakeStages, counters: Counters) -> None:
        reader = stalled_reader(url)
        for _ in range(400):
            if stages.cancelled and not stages._at:
                break
            await asyncio.sleep(0.02)
        assert set(stages.cancelled) == {"mine"} and (counters.in_flight, counters.disconnects) == (0, 1)
        reader.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fake_stages.PREVIEW", "x" * 500_000)
        served(play, steps=400, step_s=0.01, write_s=0.3)
