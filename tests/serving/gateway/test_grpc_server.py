"""The public gRPC port: errors, floods and slowness of one caller do not affect others."""

from __future__ import annotations

import asyncio
import queue
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc.aio
import pytest
from made_up_rpc import Caller, MadeUpRpc, by_id, message, status_of
from tritonclient.grpc import service_pb2
from waiting import wait_until

from id3pm.serving.gateway.auth import KINDS, Access
from id3pm.serving.gateway.auth import Caller as Known
from id3pm.serving.gateway.gateway import Gateway
from id3pm.serving.gateway.grpc_server import RpcGateway
from id3pm.serving.gateway.options import GatewayOptions
from id3pm.serving.launcher.endpoints import check_ports
from id3pm.serving.launcher.health import Addresses, Health
from id3pm.serving.protocol import limits

TOKEN = "t" * 20
LIMITED = GatewayOptions(access=Access([(TOKEN.encode(), Known("web", ("photo",)))]))


class Front:
    """The gateway, and a caller."""

    def __init__(self, triton: MadeUpRpc, options: GatewayOptions) -> None:
        self.triton, self.health = triton, Health()
        self.health.serves(Addresses(triton.address, triton.address, triton.address))
        ports = check_ports("127.0.0.1", {"http-port": 0, "grpc-port": 0, "metrics-port": 0})
        self.port = ports["grpc-port"]
        self.gateway = Gateway("127.0.0.1", ports, self.health, options)
        self.gateway.start()
        self._callers: list[Caller] = []
        self.caller = self.another()

    def another(self, token: str | None = None) -> Caller:
        self._callers.append(Caller(self.port, token))
        return self._callers[-1]

    def close(self) -> None:
        for caller in self._callers:
            caller.close()
        self.gateway.stop()


@pytest.fixture
def open_front() -> Iterator[Callable[[GatewayOptions], Front]]:
    triton, opened = MadeUpRpc(), []

    def start(options: GatewayOptions) -> Front:
        opened.append(Front(triton, options))
        return opened[-1]

    yield start
    for front in opened:
        front.close()
    triton.stop()


@pytest.fixture
def front(open_front: Callable[[GatewayOptions], Front]) -> Front:
    return open_front(GatewayOptions())


def test_a_refused_request_is_answered_alone_and_its_stream_goes_on(front: Front) -> None:
    requests = [
        message("slow-1"),
        message("bad", model="other"),
        message("x" * 300),
        message("path-1"),
        message("dead-1"),
        message("last"),
    ]
    answers = list(front.caller.stream(iter(requests)))
    assert [answer.infer_response.id for answer in answers] == ["slow-1", "bad", "", "path-1", "dead-1", "last"]
    errors = by_id(answers)
    assert errors["slow-1"] == errors["last"] == ""
    assert "model 'other' is not served" in errors["bad"] and "at most 256" in errors[""]
    assert errors["path-1"] == "see (a file)", "no path passes"
    assert "being restarted: retry after" in errors["dead-1"]
    parameters = {answer.infer_response.id: answer.infer_response.parameters for answer in answers}
    assert parameters["bad"]["code"].string_param == "not_found" and "code" not in parameters["last"]
    assert parameters["dead-1"]["code"].string_param == "unavailable"
    assert parameters["dead-1"]["retry_after_s"].double_param >= 1.0
    assert front.health.suspicion.is_set(), "the supervisor looks at once"
    assert all(answer.infer_response.parameters["triton_final_response"].bool_param for answer in answers)
    counters = front.gateway.counters
    assert (counters.in_flight, counters.disconnects) == (0, 0)
    assert counters.requests["grpc", "NOT_FOUND"] == counters.requests["grpc", "INTERNAL"] == 1


def test_what_a_caller_may_not_send_is_refused_alone(open_front: Callable[[GatewayOptions], Front]) -> None:
    web = open_front(LIMITED).another(TOKEN)
    errors = by_id(list(web.stream(iter([message("a", "id3pm_photo"), message("b"), message("c", "id3pm_photo")]))))
    assert errors["a"] == errors["c"] == ""
    assert "web may not send ID vectors" in errors["b"]


def with_control(model: str) -> Any:
    asked = service_pb2.ModelInferRequest(model_name=model, id="a")
    asked.inputs.add(name="control", datatype="BYTES", shape=[1, 1]).contents.bytes_contents.append(b"ping")
    return asked


def test_the_word_control_opens_nothing_over_grpc(open_front: Callable[[GatewayOptions], Front]) -> None:
    front = open_front(GatewayOptions(access=Access(accept=("vector",))))
    for model in ("face_embedding", "id3pm_photo"):
        asked = with_control(model)
        assert status_of(lambda asked=asked: front.caller.infer(asked))[0] == "PERMISSION_DENIED"
    code, text = status_of(lambda: front.caller.infer(with_control("id3pm")))
    assert code == "INVALID_ARGUMENT" and "input 'control' is unknown" in text
    assert front.triton.seen == []


def test_a_drain_lets_the_work_on_a_stream_end_and_refuses_what_is_new(front: Front) -> None:
    sent: queue.SimpleQueue[Any] = queue.SimpleQueue()
    answers = front.caller.stream(iter(sent.get, None))
    sent.put(message("for ever"))
    wait_until(lambda: front.triton.seen)
    front.health.drains()
    sent.put(message("new"))
    time.sleep(0.2)
    front.triton.released.set_result(None)
    sent.put(None)
    errors = by_id(list(answers))
    assert errors["for ever"] == "" and "draining" in errors["new"] and "retry after" in errors["new"]
    assert front.triton.seen == ["for ever"]


def test_who_leaves_a_stream_leaves_all_its_work(front: Front) -> None:
    sent: queue.SimpleQueue[Any] = queue.SimpleQueue()
    answers = front.caller.stream(iter(sent.get, None))
    for name in ("for ever 1", "for ever 2"):
        sent.put(message(name))
    wait_until(lambda: len(front.triton.seen) == 2)
    sent.put(message("bad", model="other"))
    answers.cancel()
    wait_until(lambda: {words[1] for words in front.triton.cancels} == {"for ever 1", "for ever 2"})
    assert front.gateway.counters.disconnects == 2 and front.gateway.counters.in_flight == 0
    sent.put(None)


@pytest.mark.parametrize("method", ["ModelInfer", "ModelConfig", "ModelStreamInfer"])
def test_a_token_is_asked_for_before_the_message(open_front: Callable[[GatewayOptions], Front], method: str) -> None:
    """It never comes, and the answer does."""
    stranger = open_front(LIMITED).caller
    began = time.monotonic()
    assert status_of(lambda: stranger.send_nothing(method))[0] == "UNAUTHENTICATED"
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("method", ["ServerLive", "ServerReady"])
def test_what_needs_no_message_reads_none(front: Front, method: str) -> None:
    assert status_of(lambda: front.caller.send_nothing(method)) == ("OK", "")


def test_a_message_that_does_not_come_is_not_waited_for(open_front: Callable[[GatewayOptions], Front]) -> None:
    front = open_front(GatewayOptions(body_s=0.3))
    for method in ("ModelInfer", "ModelReady", "ModelConfig"):
        code, text = status_of(lambda method=method: front.caller.send_nothing(method))
        assert code == "DEADLINE_EXCEEDED" and "the message was not there after 0.3 s" in text


def test_slow_senders_take_no_more_memory_than_is_allowed(
    open_front: Callable[[GatewayOptions], Front], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two messages of full size may arrive at a time; while they do not, the next is told when to come back."""
    monkeypatch.setattr(limits, "TURN_S", 0.2)
    front = open_front(GatewayOptions(max_body=2**20, max_bodies=2 * 2**20))
    slow = [front.another().begin_nothing("ModelInfer") for _ in range(2)]
    time.sleep(0.3)
    code, text = status_of(lambda: front.caller.infer(message("a")))
    assert code == "RESOURCE_EXHAUSTED" and "retry after 1 s" in text
    for call in slow:
        call.cancel()
    wait_until(lambda: status_of(lambda: front.caller.infer(message("a")))[0] == "OK")


@pytest.mark.parametrize("method", ["ModelInfer", "ModelReady"])
def test_silent_calls_make_way_for_those_that_speak(
    open_front: Callable[[GatewayOptions], Front], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(limits, "SOON_S", 0.4)
    front = open_front(GatewayOptions(max_body=2**20, max_bodies=2 * 2**20))
    silent = [front.another().begin_nothing(method) for _ in range(4)]
    time.sleep(0.3)
    if method == "ModelInfer":
        assert status_of(lambda: front.caller.infer(message("a")))[0] == "OK"
    else:
        assert front.caller.is_ready("id3pm")
    wait_until(lambda: any(call.done() for call in silent))
    for call in [call for call in silent if call.done()]:
        assert re.search("others wait|too many messages", call.details()) and call.code().name == "RESOURCE_EXHAUSTED"
    for call in silent:
        call.cancel()


@pytest.mark.parametrize("what", ["requests", "bytes"])
def test_a_flood_is_refused_with_a_hint_and_the_rest_is_served(
    open_front: Callable[[GatewayOptions], Front], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(limits, "MAX_WORK", 6 if what == "requests" else 1000)
    front = open_front(GatewayOptions(max_body=2**20, max_bodies=6 * 2**20))
    outcomes: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
    size = 0 if what == "requests" else 900_000

    def call(number: int) -> None:
        outcomes.put(status_of(lambda: front.another().infer(message(f"slow-{number}", size=size))))

    threads = [threading.Thread(target=call, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    found = [outcomes.get_nowait() for _ in threads]
    codes = [code for code, _ in found]
    assert set(codes) == {"OK", "RESOURCE_EXHAUSTED"} and codes.count("OK") >= 2, found
    assert all("retry after 1 s" in text for code, text in found if code != "OK")
    assert front.caller.infer(message("a")).id == "a", "afterwards there is room again"


def test_who_leaves_at_once_leaves_no_room_for_more(open_front: Callable[[GatewayOptions], Front]) -> None:
    """What he sent still waits in Triton, and still counts: else a flood of those who leave would have no end."""
    front = open_front(GatewayOptions(max_body=2**20, max_bodies=5 * 2**20))
    for number in range(2):
        asked = message(f"for ever {number}", size=900_000)
        code, _ = status_of(lambda asked=asked: front.caller.infer(asked, timeout_s=0.5))
        assert code == "DEADLINE_EXCEEDED"
    wait_until(lambda: front.gateway.counters.disconnects == 2)
    code, text = status_of(lambda: front.caller.infer(message("one more", size=900_000)))
    assert code == "RESOURCE_EXHAUSTED" and "the bodies of all requests" in text
    front.triton.released.set_result(None)
    wait_until(lambda: status_of(lambda: front.caller.infer(message("one more", size=900_000)))[0] == "OK")


def test_streams_are_counted(open_front: Callable[[GatewayOptions], Front], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_STREAMS", 2)
    front = open_front(GatewayOptions())
    ended: queue.SimpleQueue[None] = queue.SimpleQueue()

    def asking_once(number: int) -> Iterator[bytes]:
        yield message(f"stream {number}")
        ended.get()

    opened = [front.another().stream(asking_once(number)) for number in range(2)]
    for stream in opened:
        next(stream)  # it is open, and counted
    code, text = status_of(lambda: list(front.caller.stream(iter(()))))
    assert code == "RESOURCE_EXHAUSTED" and "2 streams are open" in text
    with pytest.raises(grpc.RpcError) as caught:
        list(front.caller.stream(iter(())))
    fields = dict(caught.value.trailing_metadata())
    assert (fields["id3pm-code"], fields["id3pm-retry-after-s"]) == ("too_many_requests", "1.0")
    for stream in opened:
        stream.cancel()
        ended.put(None)
    wait_until(lambda: status_of(lambda: list(front.caller.stream(iter(())))) == ("OK", ""))


def test_who_takes_no_answers_is_cut_off_and_asked_no_more(
    open_front: Callable[[GatewayOptions], Front], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_ON_ONE_STREAM", 8)
    front = open_front(GatewayOptions(write_s=0.5))
    answers = front.caller.stream(message(f"large {number}") for number in range(200))
    next(answers)
    time.sleep(2.0)
    assert len(front.triton.seen) < 100
    code, _ = status_of(lambda: list(answers))
    assert code == "DEADLINE_EXCEEDED"
    assert front.gateway.counters.in_flight == 0


def test_everything_passes_for_who_may_do_everything(open_front: Callable[[GatewayOptions], Front]) -> None:
    options = GatewayOptions(access=Access([(TOKEN.encode(), Known("lab", KINDS))]))
    front = open_front(options)
    lab = front.another(TOKEN)
    assert lab.infer(message("a", size=1000)).id == "a"
    assert len(lab.infer(message("")).id) == 32
    assert [answer.infer_response.id for answer in lab.stream(iter([message("b"), message("c")]))] == ["b", "c"]


def test_a_caller_that_leaves_while_the_answer_is_written_is_no_failure() -> None:
    class Gone:
        def done(self) -> bool:
            return False  # gRPC has not noticed yet

        async def write(self, answer: bytes) -> None:
            raise grpc.aio.InternalError("execute_batch")

    gateway = object.__new__(RpcGateway)
    gateway._write_s = 1.0
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(gateway._write(b"", Gone()))
