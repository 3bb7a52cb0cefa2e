"""One table of error codes: the exceptions, the wire, the client and the docs say what it says."""

from __future__ import annotations

import grpc
import pytest

import id3pm_client
from id3pm.error_codes import ERROR_CODES
from id3pm.errors import Id3pmError
from id3pm.serving.gateway.grpc_calls import METADATA
from id3pm.serving.protocol.error_envelope import ERROR_TAG, StageError, read, triton_code, write
from id3pm.serving.protocol.limits import MAX_MESSAGE
from id3pm_client import _errors as client


def exceptions(base: type[Id3pmError]) -> set[type[Id3pmError]]:
    return {base}.union(*map(exceptions, base.__subclasses__()))


def test_every_exception_has_a_code_of_the_table() -> None:
    assert {kind.code for kind in exceptions(Id3pmError)} <= set(ERROR_CODES)


def test_statuses_are_those_of_http_and_grpc() -> None:
    for row in ERROR_CODES.values():
        assert 400 <= row.http < 600 and grpc.StatusCode[row.grpc]
        assert row.title and row.meaning and row.advice.format(wait="in a minute") != "in a minute"
        assert triton_code(row.code) in ("INVALID_ARG", "UNAVAILABLE", "CANCELLED", "INTERNAL")


def test_the_client_reads_what_the_gateway_writes() -> None:
    assert METADATA == {"code": client.CODE, "retry_after_s": client.RETRY_AFTER_S}
    assert client.ERROR_TAG == ERROR_TAG
    retried = {code for code, kind in client.BY_CODE.items() if issubclass(kind, id3pm_client.UnavailableError)}
    assert retried == {row.code for row in ERROR_CODES.values() if row.retryable}


@pytest.mark.parametrize(
    "text", ["", "no face", 'a {"code": "internal"} b', "\n\u2028\U0001f600", " leading", "x" * MAX_MESSAGE]
)
@pytest.mark.parametrize("seconds", [None, 0.5, 3])
def test_gateway_and_client_read_what_a_stage_writes(text: str, seconds: float | None) -> None:
    said = StageError("queue_full", text, seconds)
    written = "in ensemble 'id3pm', " + write("TAG", said)
    assert read("TAG", written) == said
    error = client.error_from_status("UNAVAILABLE", written, tag="TAG")
    assert (error.code, error.retry_after_s) == ("queue_full", seconds)
    assert str(error) == (text.strip() or "the server answered UNAVAILABLE without a message")


def test_without_a_tag_the_text_is_all_there_is() -> None:
    assert write("", StageError("no_face", "no face was found")) == "no face was found"
    assert read("TAG", "no face was found") is None
    assert read("TAG", "TAG is no envelope") is None
    assert read("TAG", "TAG[]") is None
