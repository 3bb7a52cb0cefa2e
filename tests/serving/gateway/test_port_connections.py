"""Limits of connections and streams, and which one is closed for a new one."""

from __future__ import annotations

import asyncio
import resource

import pytest

from id3pm.errors import ServerError
from id3pm.serving.gateway.admission import decoded_size
from id3pm.serving.gateway.connections import Connections, Shares, raise_descriptor_limit
from id3pm.serving.gateway.grpc_streams import Streams
from id3pm.serving.protocol import limits
from id3pm.serving.protocol.status import RefusedError


def opened(connections: Connections, closed: list[int], host: str, port: int) -> bool:
    return connections.admit((host, port), lambda: closed.append(port)) is not None


def test_the_longest_silent_connection_makes_room_first_those_without_a_request() -> None:
    connections, closed = Connections(8), list[int]()
    for port in range(1, 5):
        assert opened(connections, closed, "10.0.0.1", port)
    with connections.answering("ipv4:10.0.0.1:1"):  # has asked once
        pass
    with connections.answering("ipv4:10.0.0.1:2"):
        for port in range(5, 8):
            assert opened(connections, closed, "10.0.0.1", port)
        assert closed == [3, 4, 5]
        assert len(connections) == 4


def test_who_has_the_most_makes_room_for_others() -> None:
    connections, closed = Connections(8), list[int]()
    for host, ports in (("10.0.0.2", (1, 2)), ("10.0.0.1", (11, 12, 13)), ("::1", (21, 22, 23))):
        for port in ports:
            assert opened(connections, closed, host, port)
    assert opened(connections, closed, "10.0.0.2", 3)
    assert closed == [11]
    with connections.answering("ipv6:%5B::1%5D:21"):
        pass
    assert opened(connections, closed, "10.0.0.3", 4)
    assert closed[1] in (1, 22), closed


def test_where_all_are_at_work_the_new_one_is_refused_until_an_upload_stands_still() -> None:
    connections, closed = Connections(2), list[int]()
    assert opened(connections, closed, "10.0.0.1", 1) and opened(connections, closed, "10.0.0.2", 2)
    with connections.answering("ipv4:10.0.0.1:1"), connections.answering("ipv4:10.0.0.2:2"):
        assert not opened(connections, closed, "10.0.0.3", 3)
        with connections.uploading("ipv4:10.0.0.1:1") as progress:
            progress()
            assert opened(connections, closed, "10.0.0.3", 3)
    assert closed == [1]


@pytest.mark.parametrize("descriptors", [256, 1024, 4096, 16_384, 2**20])
def test_connections_leave_descriptors_for_supervision(descriptors: int) -> None:
    shares = Shares.of(descriptors)
    requests = min(shares.http, limits.MAX_WORK + limits.MAX_QUERIES)
    assert min(shares.http, shares.grpc, shares.metrics) > 0
    assert shares.http + requests + shares.grpc + shares.metrics <= descriptors - limits.RESERVED_DESCRIPTORS
    if descriptors >= limits.MAX_DESCRIPTORS:
        assert (shares.http, shares.grpc) == (limits.MAX_HTTP_CONNECTIONS, limits.MAX_GRPC_CONNECTIONS)


def test_too_few_descriptors_are_refused_with_the_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    with pytest.raises(ServerError, match="may open 64 files: at least 256 are needed; raise `ulimit -n`"):
        raise_descriptor_limit()


@pytest.mark.parametrize(("text", "each"), [(b"x", 1), (b"\\/", 1), ("\u00e9".encode(), 4), (b"\\ud83d\\ude00", 4)])
def test_text_counts_what_it_takes_when_decoded(text: bytes, each: int) -> None:
    body = b"x" * 1000 + text
    assert decoded_size(body) == each * len(body)


async def hold(streams: Streams, owner: str, asks: bool, opened: list[str]) -> str:
    try:
        with streams.open(owner) as stream:
            opened.append(owner)
            if asks:
                stream.asks()
            await asyncio.sleep(30)
    except RefusedError as refusal:
        return str(refusal)
    return ""


@pytest.mark.parametrize("busy", [False, True])
def test_an_idle_stream_of_who_has_most_ends_for_another(monkeypatch: pytest.MonkeyPatch, busy: bool) -> None:
    monkeypatch.setattr(limits, "MAX_STREAMS", 4)
    monkeypatch.setattr(limits, "MAX_STREAMS_OF_ONE", 3)
    monkeypatch.setattr(limits, "SOON_S", 0.05)

    async def play() -> None:
        streams, entered = Streams(), list[str]()
        owners = ("a", "b", "b", "b")
        held = [asyncio.ensure_future(hold(streams, owner, busy, entered)) for owner in owners]
        await asyncio.sleep(0.1)
        last = asyncio.ensure_future(hold(streams, "c", False, entered))
        done, rest = await asyncio.wait([*held, last], timeout=1.0, return_when=asyncio.FIRST_COMPLETED)
        (ended,) = done
        if busy:
            assert ended is last and "streams are open, as many as are allowed" in ended.result()
        else:
            assert ended is held[1] and "nothing was asked on this stream" in ended.result()
        assert streams.at_work is busy
        for task in rest:
            task.cancel()
        await asyncio.wait(rest)

    asyncio.run(play())


def test_a_stream_without_requests_ends_some_day(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "STREAM_IDLE_S", 0.05)
    assert "nothing was asked on this stream for 0.05 s" in asyncio.run(hold(Streams(), "a", False, []))
