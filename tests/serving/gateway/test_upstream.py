"""What Triton's errors become: whose request was lost may send it again; what a caller wrote changes nothing."""

from __future__ import annotations

import asyncio
import time

import grpc
import grpc.aio
import pytest

from id3pm.serving.gateway.upstream import Upstream
from id3pm.serving.launcher.health import Addresses, Health
from id3pm.serving.protocol.status import MAX_MESSAGE, RefusedError

DEAD = "Stub process 'denoiser_64_0_0' is not healthy."
LATE = "the deadline cannot be met: 0.3 s are left, and the steps alone take about 9 s; give more time"


def read(code: str, message: str) -> tuple[RefusedError, bool]:
    """What a gRPC error of Triton's becomes, and whether the supervisor was woken."""

    async def play() -> tuple[RefusedError, bool]:
        health = Health()
        health.serves(Addresses("127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:1"))
        upstream = Upstream(health.require(), health)
        none = grpc.aio.Metadata()
        refusal = upstream.refusal(grpc.aio.AioRpcError(grpc.StatusCode[code], none, none, details=message), "7")
        await upstream.close()
        return refusal, health.suspicion.is_set()

    return asyncio.run(play())


@pytest.mark.parametrize("ensemble", ["", "in ensemble 'id3pm_png', "])
def test_a_dead_stub_is_the_servers_fault_and_seen_at_once(ensemble: str) -> None:
    refusal, suspicion = read("INTERNAL", ensemble + DEAD)
    assert (refusal.code, suspicion) == ("UNAVAILABLE", True)
    assert "being restarted: retry after" in str(refusal)


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
    assert (refusal.code, suspicion) == ("INVALID_ARGUMENT", False)
    assert str(refusal) == message.removeprefix("in ensemble 'id3pm', ")


def test_a_dead_stubs_words_under_another_status_are_somebodys_text() -> None:
    for code in ("INVALID_ARGUMENT", "NOT_FOUND", "CANCELLED"):
        refusal, suspicion = read(code, DEAD)
        assert (refusal.code, suspicion) == (code, False)


@pytest.mark.parametrize("message", [LATE, f"in ensemble 'id3pm', {LATE}", "the deadline passed at step 3 of 9"])
def test_what_is_too_late_has_its_own_status(message: str) -> None:
    refusal, suspicion = read("UNAVAILABLE", message)
    assert (refusal.code, refusal.status, suspicion) == ("DEADLINE_EXCEEDED", 504, False)
    assert str(refusal) == message.removeprefix("in ensemble 'id3pm', ")


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("256 requests wait, and with 1 more there would be more than the 256 that are allowed; retry after 3 s", 3.0),
        ("in ensemble 'id3pm_png', 121 s of work are in flight, and 120 s are allowed; retry after 1 s", 1.0),
        ("this server is draining and takes no new requests: send it to another, or retry after 5 s", 5.0),
    ],
)
def test_a_refusal_for_want_of_capacity_says_when_to_come_back(message: str, seconds: float) -> None:
    refusal, suspicion = read("UNAVAILABLE", message)
    assert (refusal.code, refusal.status, refusal.retry_after_s, suspicion) == ("UNAVAILABLE", 503, seconds, False)


@pytest.mark.parametrize(
    ("message", "bare"),
    [
        ("in ensemble 'id3pm_png', in ensemble 'x', [request id: 7] seed=-1: must be", "seed=-1: must be"),
        ("[request id: 7] in ensemble 'id3pm', sampler='in ensemble'", "sampler='in ensemble'"),
        ("[request id: <id_unknown>] inference request batch-size must be <= 16", "inference request batch-size"),
        ("[request id: 8] somebody's text", "[request id: 8] somebody's text"),
        ("in ensemble 'id3pm", "in ensemble 'id3pm"),
    ],
)
def test_a_message_is_shown_without_what_triton_puts_before_it(message: str, bare: str) -> None:
    assert read("INVALID_ARGUMENT", message)[0].args[0].startswith(bare)


def test_a_message_of_any_length_is_read_in_time() -> None:
    """It may quote a name that a caller chose: 40 KB of line breaks once held the interpreter for hours."""
    began = time.process_time()
    for text in ("\n", "in ensemble '', ", "[request id: 7] ", "/", "/a", " /a/b", "\nAt:", "retry after 1 s "):
        refusal, _ = read("INTERNAL", text * 10**5)
        assert len(str(refusal)) <= MAX_MESSAGE
    assert time.process_time() - began < 2.0
