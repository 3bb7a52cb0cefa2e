from __future__ import annotations

import pytest

from id3pm.serving.protocol.status import MAX_MESSAGE, RefusedError, code_of_grpc, code_of_http, without_paths


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("cannot open /home/me/repo/model.onnx: no", "cannot open (a file): no"),
        ("ValueError: x\n\nAt:\n  /srv/id3pm/stage.py(12): execute\n", "ValueError: x"),
        ("failed at '/opt/tritonserver/backends/'", "failed at '(a file)'"),
        ("there is no /v2/models/x/infer", "there is no /v2/models/x/infer"),
        ("send 1/2 or text/event-stream; see http://example.com/a/b", None),
    ],
)
def test_messages_show_no_paths_of_this_machine(message: str, shown: str | None) -> None:
    assert without_paths(message) == (message if shown is None else shown)


def test_a_hint_becomes_a_header_in_whole_seconds() -> None:
    assert RefusedError("unavailable", "busy", retry_after_s=0.3).headers == {"Retry-After": "1"}
    assert RefusedError("unavailable", "an input named retry after 7 s").headers == {}


def test_what_is_long_is_cut_for_every_error() -> None:
    message = str(RefusedError("invalid_argument", "x" * 10**6))
    assert len(message) == MAX_MESSAGE and message.endswith("(cut)")


def test_http_and_grpc_say_the_same() -> None:
    assert RefusedError("unavailable", "").status == 503
    assert code_of_http(405) == "method_not_allowed" and code_of_http(502) == "internal"
    assert code_of_http(417) == "invalid_argument" and code_of_http(400) == "invalid_argument"
    assert code_of_grpc("UNAVAILABLE") == "unavailable" and code_of_grpc("DATA_LOSS") == "internal"


def test_an_error_is_data_beside_its_text() -> None:
    refusal = RefusedError("queue_full", "9 wait", retry_after_s=2.5)
    assert refusal.document == {
        "error": "9 wait",
        "status": "UNAVAILABLE",
        "code": "queue_full",
        "retry_after_s": 2.5,
    }
    assert "retry_after_s" not in RefusedError("no_face", "no face").document
