"""Conversion of Triton's errors: lost requests may be sent again; text of callers has no effect."""

from __future__ import annotations

import asyncio
import time

import grpc
import grpc.aio
import pytest
from tritonclient.grpc import service_pb2

from id3pm.serving.gateway.upstream import SERVICE, Upstream
from id3pm.serving.launcher.health import Addresses, Health
from id3pm.serving.protocol.error_envelope import StageError, write
from id3pm.serving.protocol.status import MAX_MESSAGE, RefusedError

DEAD = "Stub process 'denoiser_64_0_0' is not healthy."
LATE = "the deadline cannot be met: 0.3 s are left, and the steps alone take about 9 s; give more time"


def read(code: str, message: str, said: StageError | None = None) -> tuple[RefusedError, bool]:
    """What a gRPC error of Triton's becomes, or of a stage's behind `message`; whether the supervisor was woken."""

    async def play() -> tuple[RefusedError, bool]:
        health = Health()
        health.serves(Addresses("127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:1"))
        upstream = Upstream(health.require(), health)
        none = grpc.aio.Metadata()
        details = message if said is None else message + write(upstream._error_tag, said)
        refusal = upstream.error_of(grpc.aio.AioRpcError(grpc.StatusCode[code], none, none, details=details), "7")
        await upstream.close()
        return refusal, health.suspicion.is_set()

    return asyncio.run(play())


@pytest.mark.parametrize("ensemble", ["", "in ensemble 'id3pm_png', "])
def test_a_dead_stub_is_the_servers_fault_and_seen_at_once(ensemble: str) -> None:
    refusal, suspicion = read("INTERNAL", ensemble + DEAD)
    assert (refusal.code, suspicion) == ("unavailable", True)
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
        "unavailable",
        "the server has no shared memory left for this: retry after 1 s",
        False,
    )
    assert refusal.retry_after_s == 1.0


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
    bare = message.removeprefix("in ensemble 'id3pm', ")
    for said in (None, StageError("invalid_argument", bare)):
        refusal, suspicion = read("INVALID_ARGUMENT", message if said is None else "in ensemble 'id3pm', ", said)
        assert (refusal.code, refusal.retry_after_s, suspicion) == ("invalid_argument", None, False)
        assert str(refusal) == bare


@pytest.mark.parametrize("forged", ['{"code": "queue_full", "retry_after_s": 9} x', "id3pm-code: no_face", "TAG{}"])
def test_an_envelope_cannot_be_forged(forged: str) -> None:
    """Its tag is a secret: what a caller writes, even an envelope with a tag of its own, is text."""
    for text in (forged, write(f"id3pm-{'0' * 32}", StageError("no_face", forged))):
        for said in (None, StageError("invalid_argument", text)):
            refusal, _ = read("INVALID_ARGUMENT", text if said is None else "", said)
            assert (refusal.code, refusal.status, refusal.retry_after_s) == ("invalid_argument", 400, None)
            assert str(refusal) == text


def test_no_two_connections_share_a_tag() -> None:
    async def tags() -> set[str]:
        health = Health()
        health.serves(Addresses("127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:1"))
        made = [Upstream(health.require(), health) for _ in range(8)]
        for upstream in made:
            await upstream.close()
        return {upstream._error_tag for upstream in made}

    assert len(asyncio.run(tags())) == 8


def test_a_dead_stubs_words_under_another_status_are_somebodys_text() -> None:
    for status, code in (("INVALID_ARGUMENT", "invalid_argument"), ("NOT_FOUND", "not_found")):
        refusal, suspicion = read(status, DEAD)
        assert (refusal.code, suspicion) == (code, False)


@pytest.mark.parametrize("status", ["UNAVAILABLE", "CANCELLED", "UNKNOWN"])
def test_what_no_stage_said_comes_from_a_server_that_goes(status: str) -> None:
    refusal, suspicion = read(status, "Server exiting")
    assert (refusal.code, refusal.grpc, suspicion) == ("unavailable", "UNAVAILABLE", True)


@pytest.mark.parametrize("before", ["", "in ensemble 'id3pm', ", "in ensemble 'id3pm', [request id: 7] "])
@pytest.mark.parametrize(
    ("said", "status", "grpc_status"),
    [
        (StageError("deadline_exceeded", LATE), 504, "DEADLINE_EXCEEDED"),
        (StageError("queue_full", "256 requests wait; retry after 3 s", 3.0), 503, "UNAVAILABLE"),
        (StageError("draining", "this server is draining", 5), 503, "UNAVAILABLE"),
        (StageError("no_face", "no face was found"), 400, "INVALID_ARGUMENT"),
        (StageError("cancelled", "the request was cancelled"), 499, "CANCELLED"),
        (StageError("internal", "internal error (KeyError)"), 500, "INTERNAL"),
    ],
)
def test_what_a_stage_says_comes_through_as_data(before: str, said: StageError, status: int, grpc_status: str) -> None:
    refusal, suspicion = read("UNAVAILABLE", before, said)
    assert (refusal.code, str(refusal), refusal.retry_after_s) == said
    assert (refusal.status, refusal.grpc, suspicion) == (status, grpc_status, False)


@pytest.mark.parametrize(
    ("message", "bare"),
    [
        ("in ensemble 'id3pm_png', in ensemble 'id3pm', [request id: 7] seed=-1: must be", "seed=-1: must be"),
        ("[request id: 7] in ensemble 'id3pm', sampler='in ensemble'", "sampler='in ensemble'"),
        ("[request id: <id_unknown>] inference request batch-size must be <= 16", "inference request batch-size"),
        ("[request id: 8] a caller's text", "[request id: 8] a caller's text"),
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


class _SlowTriton:
    """Answers after `seconds`; keeps whether its calls were cancelled."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.ended: list[str] = []

    async def infer(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        self.ended.append("answered")
        return b""


@pytest.mark.parametrize("way", ["cancelled", "late", "closed"])
def test_no_call_to_triton_is_cancelled(way: str) -> None:
    """One that is cancelled while it is answered ends Triton, and with it everybody's requests."""

    async def play() -> list[str]:
        triton, server, health = _SlowTriton(0.4), grpc.aio.server(), Health()
        methods = {"ModelInfer": grpc.unary_unary_rpc_method_handler(triton.infer)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        health.serves(Addresses(address, address, address))
        upstream = Upstream(health.require(), health)
        message = service_pb2.ModelInferRequest(model_name="denoiser_64")
        call = asyncio.ensure_future(upstream.infer_bytes(message, 0.2 if way == "late" else None))
        await asyncio.sleep(0.1)
        if way != "closed":
            if way == "cancelled":
                call.cancel()
            with pytest.raises(asyncio.CancelledError if way == "cancelled" else RefusedError) as raised:
                await call
            if way == "late":
                assert str(raised.value) == "denoiser_64 did not answer within 0.2 s"
        await upstream.close()
        await server.stop(1.0)
        return triton.ended

    assert asyncio.run(play()) == ["answered"]
