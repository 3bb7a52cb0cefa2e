"""The public HTTP port: accepted requests, and refused ones that never reach Triton."""

from __future__ import annotations

import gzip
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from made_up_triton import Front

from id3pm.serving.gateway.auth import Access, Caller
from id3pm.serving.gateway.options import GatewayOptions
from id3pm.serving.protocol import limits
from id3pm.serving.protocol.error_envelope import StageError

INFER = "/v2/models/id3pm/infer"
TOKEN = "t" * 20
SEED = {"name": "seed", "shape": [1, 1], "datatype": "INT64", "data": [1]}
GOOD: dict[str, Any] = {"inputs": [SEED]}
PHOTO: dict[str, Any] = {"photo": "x"}


def error_of(answer: tuple[int, dict[str, str], bytes], status: int) -> str:
    assert answer[0] == status, answer
    document = json.loads(answer[2])
    assert set(document) - {"retry_after_s"} == {"error", "code", "status"}
    return str(document["error"])


@pytest.mark.parametrize(
    "path",
    [
        "/v2",
        "/v2/models/id3pm",
        "/v2/models/id3pm/versions/1",
        "/v2/models/denoiser_64/config",
        "/v2/models/id3pm_photo/stats",
        "/v2/models/stats",
    ],
)
def test_questions_about_the_server_and_its_models_pass(front: Front, path: str) -> None:
    assert front.http("GET", path)[::2] == (200, b'{"a": 1}')
    assert [entry[0] for entry in front.triton.seen] == [path]


@pytest.mark.parametrize(
    ("method", "path", "status", "reason"),
    [
        ("POST", "/v2/repository/index", 403, "'/v2/repository/index' is closed on this server"),
        ("POST", "/v2/repository/models/id3pm/unload", 403, "is closed"),
        ("GET", "/v2/systemsharedmemory/status", 403, "is closed"),
        ("POST", "/v2/cudasharedmemory/region/x/register", 403, "is closed"),
        ("GET", "/v2/trace/setting", 403, "is closed"),
        ("POST", "/v2/logging", 403, "is closed"),
        ("GET", "/v2/models/id3pm/trace/setting", 404, "there is no"),
        ("GET", "/metrics", 404, "there is no '/metrics'"),
        ("GET", "/", 404, "there is no '/'; models are id3pm,"),
        ("GET", "/v2/models/other", 404, "model 'other' is not served"),
        ("GET", "/v2/models/other/ready", 404, "model 'other' is not served"),
        ("POST", "/v2/models/other/infer", 404, "model 'other' is not served"),
        ("POST", "/v2/models/denoiser_64/generate_stream", 404, "'denoiser_64' has no generate_stream"),
        ("POST", "/v2/models/id3pm/versions/x/infer", 404, "model id3pm has no version 'x': send 1"),
        ("GET", "/v2/models/id3pm/versions/99/ready", 404, "model id3pm has no version '99': send 1"),
        ("GET", "/v2/models/id3pm/versions/%D9%A1/ready", 404, "has no version"),
        ("GET", "/v2/models/id3pm/versions/99", 404, "has no version '99'"),
        ("POST", "/v2/models/%2e%2e/infer", 404, ""),
        ("GET", INFER, 405, f"'GET' '{INFER}': use POST"),
        ("DELETE", "/v2", 405, "'DELETE' '/v2': use GET"),
    ],
)
def test_everything_else_is_closed_and_never_reaches_triton(
    front: Front, method: str, path: str, status: int, reason: str
) -> None:
    assert reason in error_of(front.http(method, path), status)
    assert front.triton.seen == []


def test_infer_becomes_a_message_and_its_answer_json_or_binary_as_asked(front: Front) -> None:
    front.triton.reply = {
        "receipt": ("BYTES", [1, 1], b"\x02\0\0\0{}"),
        "image_64": ("UINT8", [1, 2], b"\x07\xff"),
    }
    seed = {"name": "seed", "shape": [1, 1], "datatype": "INT64", "parameters": {"binary_data_size": 8}}
    document: dict[str, Any] = {"inputs": [seed], "outputs": [{"name": "receipt"}, {"name": "image_64"}]}
    headers = {"traceparent": "00-1-2-01", "X-Other": "1", "Authorization": "Bearer secret"}

    def send(document: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        head = json.dumps(document).encode()
        sent = {**headers, "Inference-Header-Content-Length": str(len(head))}
        status, back, content = front.http("POST", INFER, head + b"\x07" + bytes(7), sent)
        assert status == 200, content
        length = int(back.get("Inference-Header-Content-Length", len(content)))
        return json.loads(content[:length]), content[length:]

    answer, behind = send(document)
    assert behind == b"" and answer["model_name"] == "id3pm" and len(answer["id"]) == 32
    assert [tensor["data"] for tensor in answer["outputs"]] == [["{}"], [7, 255]]
    model, metadata, message = front.triton.seen[0]
    assert model == "id3pm" and message.raw_input_contents[0] == b"\x07" + bytes(7)
    assert [output.name for output in message.outputs] == ["receipt", "image_64"]
    assert metadata["traceparent"] == "00-1-2-01" and not {"x-other", "authorization"} & set(metadata)
    document["outputs"][1]["parameters"] = {"binary_data": True}
    answer, behind = send(document)
    assert behind == b"\x07\xff" and answer["outputs"][1]["parameters"] == {"binary_data_size": 2}
    assert answer["outputs"][0]["data"] == ["{}"]
    document = {"inputs": [seed], "parameters": {"binary_data_output": True}}
    assert send(document)[1] == b"\x02\0\0\0{}\x07\xff"


def test_generate_is_answered_with_plain_keys(front: Front) -> None:
    front.triton.reply = {"png": ("BYTES", [1, 1], b"\x02\0\0\0UE"), "image_64": ("UINT8", [1, 2], b"\x07\xff")}
    status, _, content = front.http("POST", "/v2/models/id3pm_png/generate", {"id": "a", "seed": 1})
    known = {"model_name": "id3pm_png", "model_version": "1", "id": "a"}
    assert (status, json.loads(content)) == (200, {**known, "png": "UE", "image_64": [7, 255]})


def chunks(size: int) -> Iterator[bytes]:
    yield b'{"id": "1", "seed": "'
    for _ in range(size // 1000):
        yield b"x" * 1000
    yield b'"}'


@pytest.mark.parametrize("path", [INFER, "/v2/models/id3pm_png/generate", "/v2/models/id3pm/generate_stream"])
@pytest.mark.parametrize("way", ["announced", "chunked", "unpacked"])
def test_a_body_that_is_too_large_never_reaches_triton(front: Front, path: str, way: str) -> None:
    bodies: dict[str, Any] = {
        "announced": b"".join(chunks(20_000)),
        "chunked": chunks(20_000),
        "unpacked": gzip.compress(b"".join(chunks(5_000_000))),
    }
    assert way != "unpacked" or len(bodies[way]) < 10_000
    answer = front.http("POST", path, bodies[way], {"Content-Encoding": "gzip"} if way == "unpacked" else {})
    assert re.fullmatch(r"the body has \d+ bytes( and more)?: at most 10000 are allowed", error_of(answer, 413))
    assert front.triton.seen == []
    assert front.gateway.counters.refused_bodies == 1


def test_a_body_is_refused_before_it_is_sent_where_its_size_is_announced(front: Front) -> None:
    with socket.create_connection(("127.0.0.1", front.ports["http-port"]), timeout=10) as connection:
        connection.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n".encode())
        assert b"413" in connection.recv(1000).split(b"\r\n")[0]


def test_a_body_that_comes_too_slowly_is_not_waited_for(open_front: Callable[[GatewayOptions], Front]) -> None:
    front = open_front(GatewayOptions(body_s=0.3))
    with socket.create_connection(("127.0.0.1", front.ports["http-port"]), timeout=10) as connection:
        connection.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
        assert b"408" in connection.recv(1000).split(b"\r\n")[0]
    assert front.triton.seen == []


@pytest.mark.parametrize("way", ["chunked", "packed"])
def test_a_smaller_body_passes_in_any_form(front: Front, way: str) -> None:
    plain = json.dumps({**GOOD, "id": "x" * 200}).encode()
    body: Any = iter([plain[:100], plain[100:]]) if way == "chunked" else gzip.compress(plain)
    assert front.http("POST", INFER, body, {"Content-Encoding": "gzip"} if way == "packed" else {})[0] == 200
    assert front.triton.messages[0].id == "x" * 200


def test_a_body_that_cannot_be_unpacked_is_the_callers_error(front: Front) -> None:
    assert front.http("POST", INFER, b"no gzip", {"Content-Encoding": "gzip"})[0] == 400
    assert front.triton.seen == []


def test_an_error_of_a_stage_shows_no_paths_and_its_hint_becomes_a_header(front: Front) -> None:
    front.triton.reply = StageError("queue_full", "9 wait, see /var/lib/x/y.py: retry after 2.5 s", 2.5)
    status, headers, content = front.http("POST", INFER, GOOD)
    assert (status, headers["Retry-After"]) == (503, "3")
    assert json.loads(content) == {
        "error": "9 wait, see (a file): retry after 2.5 s",
        "status": "UNAVAILABLE",
        "code": "queue_full",
        "retry_after_s": 2.5,
    }


@pytest.mark.parametrize(
    "answer",
    [(grpc.StatusCode.INTERNAL, "in ensemble 'id3pm', Stub process 'denoiser_64_0_0' is not healthy."), None],
    ids=["stub", "gone"],
)
def test_a_request_that_was_lost_may_be_sent_again(front: Front, answer: Any) -> None:
    if answer is None:
        front.triton.break_off = True
    else:
        front.triton.reply = answer
    status, headers, content = front.http("POST", INFER, GOOD)
    assert status == 503 and int(headers["Retry-After"]) >= 1
    assert "being restarted: retry after" in json.loads(content)["error"]
    assert front.health.suspicion.is_set(), "the supervisor looks at once"


def test_readiness_is_the_supervisors_and_liveness_is_the_gateways(front: Front) -> None:
    paths = ("/v2/health/ready", "/v2/models/id3pm/ready", "/v2/models/id3pm/versions/1/ready")
    assert [front.http("GET", path)[0] for path in paths] == [200, 200, 200]
    front.health.breaks()
    for path in paths:
        status, headers, _ = front.http("GET", path)
        assert status == 503 and "Retry-After" in headers
    assert front.http("GET", "/v2/health/live")[0] == 200
    assert "being restarted: retry after" in error_of(front.http("POST", INFER, GOOD), 503)
    assert front.triton.seen == [], "Triton was not asked"


def test_draining_refuses_work_and_still_answers_about_it(front: Front) -> None:
    front.health.drains()
    assert front.http("GET", "/v2/health/ready")[0] == 503
    assert "draining" in error_of(front.http("POST", INFER, GOOD), 503)
    assert "draining" in error_of(front.http("POST", "/v2/models/id3pm/generate_stream", {"seed": 1}), 503)
    assert front.triton.seen == []
    body = {"inputs": [{"name": "control", "shape": [1, 2], "datatype": "BYTES", "data": ["progress", "1"]}]}
    front.triton.reply = {"status": ("BYTES", [1, 1], b"\x02\0\0\0{}")}
    assert front.http("POST", "/v2/models/denoiser_64/infer", body)[0] == 200


def test_tokens_are_asked_for_everywhere_but_at_health(open_front: Callable[[GatewayOptions], Front]) -> None:
    front = open_front(GatewayOptions(access=Access([(TOKEN.encode(), Caller("web", ("photo",)))])))
    for method, path in (
        ("GET", "/v2"),
        ("GET", "/v2/models/id3pm/config"),
        ("POST", INFER),
        ("POST", "/v2/models/id3pm_photo/generate"),
        ("POST", "/v2/models/id3pm_photo/generate_stream"),
    ):
        status, headers, _ = front.http(method, path, {} if method == "POST" else None)
        assert (status, headers["WWW-Authenticate"]) == (401, "Bearer"), path
    assert front.triton.seen == []
    assert front.http("GET", "/v2/health/ready")[0] == 200
    known = {"Authorization": f"Bearer {TOKEN}"}
    assert front.http("GET", "/v2", headers=known)[0] == 200
    assert front.http("POST", "/v2/models/id3pm_photo/generate", PHOTO, known)[0] == 200
    for path in (INFER, "/v2/models/id3pm/generate_stream"):
        assert "web may not send ID vectors" in error_of(front.http("POST", path, {}, known), 403)
    ping = {"inputs": [{"name": "control", "shape": [1, 2], "datatype": "BYTES", "data": ["ping", ""]}]}
    assert front.http("POST", "/v2/models/denoiser_64/infer", ping, known)[0] == 200, "a question is no ID vector"


def test_a_token_of_any_bytes_is_refused_like_others(open_front: Callable[[GatewayOptions], Front]) -> None:
    front = open_front(GatewayOptions(access=Access([(TOKEN.encode(), Caller("web", ("photo",)))])))
    for token in (b"\xff\xfe" * 10, b"\xc3\xbc" * 10, TOKEN.encode() + b"\xff"):
        with socket.create_connection(("127.0.0.1", front.ports["http-port"]), timeout=10) as connection:
            connection.sendall(b"GET /v2 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token + b"\r\n\r\n")
            assert b" 401 " in connection.recv(1000).split(b"\r\n")[0]


@pytest.mark.parametrize("model", ["face_embedding", "id3pm_photo", "id3pm_photo_png"])
def test_the_word_control_opens_no_model_that_takes_none(
    open_front: Callable[[GatewayOptions], Front], model: str
) -> None:
    front = open_front(GatewayOptions(access=Access(accept=("vector",))))
    bodies: dict[str, dict[str, Any]] = {
        "generate": {"control": "ping", "photo": "x"},
        "infer": {
            "inputs": [
                {"name": "control", "shape": [1, 2], "datatype": "BYTES", "data": ["ping", ""]},
                {"name": "photo", "shape": [1, 1], "datatype": "BYTES", "data": ["x"]},
            ]
        },
    }
    for path, body in bodies.items():
        assert "may not send photographs" in error_of(front.http("POST", f"/v2/models/{model}/{path}", body), 403)
    front.health.drains()
    open_vector = {"control": "ping", "embedding": [1.0]}
    assert "'control' is unknown" in error_of(front.http("POST", "/v2/models/id3pm_png/generate", open_vector), 400)
    assert front.triton.seen == []


def test_a_service_for_photographs_takes_no_id_vectors_from_anybody(
    open_front: Callable[[GatewayOptions], Front],
) -> None:
    front = open_front(GatewayOptions(access=Access(accept=("photo",))))
    assert front.http("POST", "/v2/models/id3pm_photo/generate", PHOTO)[0] == 200
    seen = len(front.triton.seen)
    for path in (INFER, "/v2/models/id3pm_png/generate", "/v2/models/id3pm/generate_stream"):
        assert "callers of this service may not send ID vectors" in error_of(front.http("POST", path, {}), 403)
    assert len(front.triton.seen) == seen


def test_pages_of_other_origins_are_let_in_only_when_named(open_front: Callable[[GatewayOptions], Front]) -> None:
    page = {"Origin": "https://faces.example"}
    for origins, allowed in (((), False), (("https://other.example",), False), (("https://faces.example",), True)):
        front = open_front(GatewayOptions(allow_origins=origins))
        _, headers, _ = front.http("GET", "/v2", headers=page)
        assert (headers.get("Access-Control-Allow-Origin") == page["Origin"]) == allowed
        status, headers, _ = front.http("OPTIONS", INFER, headers={**page, "Access-Control-Request-Method": "POST"})
        assert (status == 204) == allowed
        assert ("Authorization" in headers.get("Access-Control-Allow-Headers", "")) == allowed
        seen = len(front.triton.seen)
        for path in (INFER, "/v2/models/id3pm/generate_stream"):  # without asking before, as forms do it
            status, _, body = front.http(
                "POST", path, GOOD if path == INFER else {}, {**page, "Content-Type": "text/plain"}
            )
            assert (status == 403) != allowed
        assert (len(front.triton.seen) > seen) == allowed and (allowed or b"'https://faces.example'" in body)
    assert "Access-Control-Allow-Origin" not in front.http("GET", "/v2")[1]


@pytest.mark.parametrize("port", ["http-port", "metrics-port"])
@pytest.mark.parametrize(
    "sent",
    [
        b"POST /v2/models/id3pm_png/generate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nSECRET\r\n\r\n",
        b"GET /v2 HTTP/1.1\r\nHost: x\r\nAuthorization : Bearer SECRET\r\n\r\n",
        b"\x16\x03\x01SECRET\r\n\r\n",
    ],
)
def test_what_is_no_http_is_counted_and_never_logged(
    front: Front, port: str, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection(("127.0.0.1", front.gateway._ports[port]), timeout=5) as connection:
        connection.sendall(sent)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b" 400 " in head and b"Content-Type: application/json" in head and b"SECRET" not in body
    assert json.loads(body)["code"] == "invalid_argument"
    assert (
        'requests_total{protocol="http",code="400"} 1' in front.http("GET", "/metrics", port="metrics-port")[2].decode()
    )
    assert "SECRET" not in caplog.text and "Traceback" not in caplog.text and len(caplog.text) < 300


def test_metrics_are_tritons_and_the_gateways(front: Front) -> None:
    front.triton.answer = (200, {"Content-Type": "text/plain"}, b"nv_inference_count 3\n")
    front.http("GET", "/v2")
    front.http("GET", "/nothing")
    text = front.http("GET", "/metrics", port="metrics-port")[2].decode()
    assert "nv_inference_count 3\n# HELP id3pm_gateway_requests_total" in text
    assert 'id3pm_gateway_requests_total{protocol="http",code="200"} 1' in text
    assert 'id3pm_gateway_requests_total{protocol="http",code="404"} 1' in text
    assert "id3pm_gateway_up 1" in text
    front.health.breaks()
    text = front.http("GET", "/metrics", port="metrics-port")[2].decode()
    assert "id3pm_gateway_up 0" in text and "nv_inference" not in text


def test_a_caller_that_closes_its_connection_is_noticed(front: Front) -> None:
    front.triton.delay_s = 1.0
    with socket.create_connection(("127.0.0.1", front.ports["http-port"]), timeout=10) as connection:
        body = json.dumps(GOOD)
        connection.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        deadline = time.monotonic() + 5
        while front.gateway.counters.in_flight == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
    while front.gateway.counters.disconnects == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (front.gateway.counters.disconnects, front.gateway.counters.in_flight) == (1, 0)
    assert front.gateway.counters.requests["http", "499"] == 1


@pytest.mark.parametrize("what", ["requests", "bytes"])
def test_a_flood_is_refused_with_a_hint_and_the_rest_is_served(
    open_front: Callable[[GatewayOptions], Front], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(limits, "MAX_WORK", 4 if what == "requests" else 1000)
    front = open_front(GatewayOptions(max_body=10_000, max_bodies=30_000))
    front.triton.delay_s = 0.5
    path = "/v2/models/id3pm_photo/generate"
    body = {"id": "", "photo": "x" * (10 if what == "requests" else 9000)}
    with ThreadPoolExecutor(12) as pool:
        calls = [pool.submit(front.http, "POST", path, {**body, "id": str(number)}) for number in range(12)]
        answers = [call.result() for call in calls]
    codes = [status for status, _, _ in answers]
    assert set(codes) == {200, 429} and codes.count(200) >= 3, codes
    for status, headers, content in answers:
        if status == 429:
            assert headers["Retry-After"] == "1" and json.loads(content)["code"] == "too_many_requests"
    front.triton.delay_s = 0.0
    assert front.http("POST", path, {**body, "id": "later"})[0] == 200, "afterwards there is room again"


def test_who_takes_no_answer_is_cut_off(open_front: Callable[[GatewayOptions], Front]) -> None:
    front = open_front(GatewayOptions(write_s=0.3))
    front.triton.reply = {"receipt": ("BYTES", [1, 1], (20_000_000).to_bytes(4, "little") + b"x" * 20_000_000)}
    with socket.create_connection(("127.0.0.1", front.ports["http-port"]), timeout=10) as connection:
        body = json.dumps(GOOD)
        connection.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        deadline = time.monotonic() + 10
        while front.gateway.counters.requests["http", "499"] == 0 and time.monotonic() < deadline:
            time.sleep(0.02)
    assert front.gateway.counters.requests["http", "499"] == 1
