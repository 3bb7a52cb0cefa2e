"""What Triton's errors become: whose request was lost may send it again; what a caller wrote changes nothing."""

from __future__ import annotations

import asyncio
import json

import grpc
import grpc.aio
import pytest

from id3pm.serving.gateway.upstream import Upstream
from id3pm.serving.launcher.health import Addresses, Health
from id3pm.serving.protocol.status import RefusedError

DEAD = "Stub process 'denoiser_64_0_0' is not healthy."
LATE = "the deadline cannot be met: 0.3 s are left, and the steps alone take about 9 s; give more time"


def read(code: str, message: str) -> tuple[RefusedError, bool]:
    """What a gRPC error of Triton's becomes, and whether the supervisor was woken."""

    async def play() -> tuple[RefusedError, bool]:
        health = Health()
        health.serves(Addresses("127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:1"))
        upstream = Upstream(health.require(), health)
        none = grpc.aio.Metadata()
        refusal = upstream.refusal(grpc.aio.AioRpcError(grpc.StatusCode[code], none, none, details=message))
        await upstream.close()
        return refusal, health.suspicion.is_set()

    return asyncio.run(play())


def read_http(status: int, message: str) -> tuple[int, bool]:
    async def play() -> tuple[int, bool]:
        health = Health()
        health.serves(Addresses("127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:1"))
        upstream = Upstream(health.require(), health)
        answer = upstream._http_error(status, json.dumps({"error": message}).encode())
        await upstream.close()
        return answer.status, health.suspicion.is_set()

    return asyncio.run(play())


@pytest.mark.parametrize("ensemble", ["", "in ensemble 'id3pm_png', "])
def test_a_dead_stub_is_the_servers_fault_and_seen_at_once(ensemble: str) -> None:
    refusal, suspicion = read("INTERNAL", ensemble + DEAD)
    assert (refusal.code, suspicion) == ("UNAVAILABLE", True)
    assert "being restarted: retry after" in str(refusal)
    for status in (500, 400):  # `infer`, and `generate`, which has 400 for everything
        assert read_http(status, ensemble + DEAD) == (503, True)


@pytest.mark.parametrize("ensemble", ["", "in ensemble 'id3pm_photo', "])
def test_shared_memory_that_is_full_is_busy_and_no_failure(ensemble: str) -> None:
    message = (
        f"{ensemble}Failed to increase the shared memory pool size for key 'triton_python_backend_shm_region_1' to "
        "33554432 bytes. If you are running Triton inside docker, use '--shm-size' flag to control the shared memory "
        "region size. Error: No space left on device"
    )
    refusal, woken = read("INTERNAL", message)
    assert (refusal.code, str(refusal), woken) == (
        "UNAVAILABLE",
        "the server has no shared memory left for this: retry after 1 s",
        False,
    )
    assert [read_http(status, message) for status in (500, 400)] == [(503, False)] * 2


@pytest.mark.parametrize(
    "message",
    [
        "sampler='is not healthy': choose one of ddpm, ddim, dpmpp_2m",
        f"sampler={DEAD!r}: choose one of ddpm, ddim, dpmpp_2m",
        f"in ensemble 'id3pm', sampler={DEAD!r}: choose one of ddpm, ddim, dpmpp_2m",
        f"request id {DEAD}",
        "sampler='5 s of work; retry after 9 s'",
        f"sampler='{LATE}'",
    ],
)
def test_words_of_a_caller_are_no_fault_of_the_server(message: str) -> None:
    refusal, suspicion = read("INVALID_ARGUMENT", message)
    assert (refusal.code, str(refusal), suspicion) == ("INVALID_ARGUMENT", message, False)
    assert read_http(400, message) == (400, False)


def test_a_dead_stubs_words_under_another_status_are_somebodys_text() -> None:
    for code in ("INVALID_ARGUMENT", "NOT_FOUND", "CANCELLED"):
        refusal, suspicion = read(code, DEAD)
        assert (refusal.code, suspicion) == (code, False)


@pytest.mark.parametrize("message", [LATE, f"in ensemble 'id3pm', {LATE}", "the deadline passed at step 3 of 9"])
def test_what_is_too_late_has_its_own_status(message: str) -> None:
    refusal, suspicion = read("UNAVAILABLE", message)
    assert (refusal.code, refusal.status, str(refusal), suspicion) == ("DEADLINE_EXCEEDED", 504, message, False)
    assert read_http(503, message) == read_http(400, message) == (504, False)


@pytest.mark.parametrize(
    "message",
    [
        "256 requests wait, and with 1 more there would be more than the 256 that are allowed; retry after 3 s",
        "in ensemble 'id3pm_png', 121 s of work are in flight, and 120 s are allowed; retry after 1 s",
        "this server is draining and takes no new requests: send it to another, or retry after 5 s",
    ],
)
def test_a_refusal_for_want_of_capacity_is_503_from_generate_too(message: str) -> None:
    assert read_http(503, message) == read_http(400, message) == (503, False)
    assert read("UNAVAILABLE", message)[0].code == "UNAVAILABLE"


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("in ensemble 'id3pm_png', the request was cancelled", 499),
        ("the caller cancelled the request or went away", 499),
        ("in ensemble 'id3pm_png', the engine failed at step 3 of 9: ValueError", 500),
        ("internal error (KeyError); the server's log says more", 500),
        ("sampler='the request was cancelled': choose one of ddpm, ddim, dpmpp_2m", 400),
    ],
)
def test_generate_tells_a_callers_mistake_from_others(message: str, status: int) -> None:
    assert read_http(400, message) == (status, False)


def test_what_cannot_be_read_is_the_callers_mistake() -> None:
    assert read_http(500, "Unable to parse 'data': FP16 is not supported")[0] == 400
    refusal, _ = read(
        "INTERNAL", "in ensemble 'id3pm_photo', [request id: 1a] out of bounds index 0: request has 0 inputs"
    )
    assert refusal.code == "INVALID_ARGUMENT" and "send photo" in str(refusal)
