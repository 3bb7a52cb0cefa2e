from __future__ import annotations

import pytest

from id3pm.serving.protocol.status import RefusedError, code_of, retry_header, without_paths


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


@pytest.mark.parametrize(
    ("message", "header"),
    [
        ("256 requests wait: retry after 0.3 s", {"Retry-After": "1"}),
        ("busy, retry after 12 s", {"Retry-After": "12"}),
        ("try again later", {}),
    ],
)
def test_a_retry_hint_becomes_a_header_in_whole_seconds(message: str, header: dict[str, str]) -> None:
    assert retry_header(message) == header


def test_http_and_grpc_say_the_same() -> None:
    assert RefusedError("UNAVAILABLE", "").status == 503
    assert code_of(503) == "UNAVAILABLE"
    assert code_of(405) == "INVALID_ARGUMENT" and code_of(502) == "INTERNAL"
