from __future__ import annotations

import pytest

from id3pm.serving.protocol.status import MAX_MESSAGE, RefusedError, code_of, seconds_at_end, without_paths


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
    ("message", "seconds"),
    [
        ("256 requests wait; retry after 0.3 s", 0.3),
        ("busy, retry after 12 s", 12.0),
        ("try again later", None),
        ("retry after 12 s, or so", None),
        ("retry after 1_0 s", None),
        ("retry after \u0663 s", None),
        ("retry after 1.2.3 s", None),
        (f"retry after {'9' * 400} s", None),
        ("retry after  s", None),
        ("s", None),
        ("", None),
    ],
)
def test_a_hint_is_read_at_the_end_alone_and_only_where_it_is_a_number(message: str, seconds: float | None) -> None:
    assert seconds_at_end(message) == seconds


def test_a_hint_becomes_a_header_in_whole_seconds() -> None:
    assert RefusedError("UNAVAILABLE", "busy", retry_after_s=0.3).headers == {"Retry-After": "1"}
    assert RefusedError("UNAVAILABLE", "an input named retry after 7 s").headers == {}


def test_what_is_long_is_cut_for_every_refusal() -> None:
    message = str(RefusedError("INVALID_ARGUMENT", "x" * 10**6))
    assert len(message) == MAX_MESSAGE and message.endswith("(cut)")


def test_http_and_grpc_say_the_same() -> None:
    assert RefusedError("UNAVAILABLE", "").status == 503
    assert code_of(503) == "UNAVAILABLE"
    assert code_of(405) == "INVALID_ARGUMENT" and code_of(502) == "INTERNAL"
