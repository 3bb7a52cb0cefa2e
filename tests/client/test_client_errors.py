"""The exception tree and the mapping from gRPC's status codes."""

from __future__ import annotations

import pickle

import pytest

import id3pm_client
from id3pm_client import (
    AccessDeniedError,
    CancelledRequestError,
    ClientError,
    ClosedClientError,
    ConnectionFailedError,
    DeadlineExceededError,
    InternalServerError,
    InvalidRequestError,
    NotServedError,
    OverloadedError,
    UnavailableError,
)
from id3pm_client._errors import BY_CODE, CODE, RETRY_AFTER_S, error_from_status

# Messages as Triton 2.51 and gRPC 1.85 send them.
STATUSES = [
    ("INVALID_ARGUMENT", "steps=0: must be between 1 and 1000", InvalidRequestError),
    ("UNAVAILABLE", "256 requests wait, as many as are allowed; try again later", OverloadedError),
    ("UNAVAILABLE", "Server exiting", OverloadedError),
    ("UNAVAILABLE", "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1", ConnectionFailedError),
    ("UNAVAILABLE", "errors resolving nohost.invalid:1: [field:hostname lookup error]", ConnectionFailedError),
    ("UNAVAILABLE", "Cancelling all calls", ConnectionFailedError),
    ("UNAVAILABLE", "Socket closed", ConnectionFailedError),
    ("UNAVAILABLE", "Connection reset by peer", ConnectionFailedError),
    ("UNAVAILABLE", "recvmsg:Connection reset by peer", ConnectionFailedError),
    ("UNAVAILABLE", "This protocol is restricted, expecting header 'triton-grpc-protocol-k'", AccessDeniedError),
    ("UNAUTHENTICATED", "who are you?", AccessDeniedError),
    ("PERMISSION_DENIED", "no", AccessDeniedError),
    ("DEADLINE_EXCEEDED", "Deadline Exceeded", DeadlineExceededError),
    ("CANCELLED", "the request was cancelled", CancelledRequestError),
    ("CANCELLED", "Received RST_STREAM with error code 8", ConnectionFailedError),
    ("DEADLINE_EXCEEDED", "the deadline cannot be met: 1 s are left", DeadlineExceededError),
    ("RESOURCE_EXHAUSTED", "Received message larger than max (99 vs. 9)", InvalidRequestError),
    ("NOT_FOUND", "Request for unknown model: 'id3pm' is not found", NotServedError),
    ("UNIMPLEMENTED", "unknown service", NotServedError),
    ("INTERNAL", "Stub process 'denoiser_64_0_0' is not healthy.", OverloadedError),
    ("INTERNAL", "Received RST_STREAM with error code 2", ConnectionFailedError),
    ("UNKNOWN", "Stream removed", ConnectionFailedError),
    ("INTERNAL", "the engine failed at step 2 of 25: no memory", InternalServerError),
    ("UNKNOWN", "?", InternalServerError),
]


@pytest.mark.parametrize(("status", "message", "expected"), STATUSES)
def test_every_status_has_its_exception(status: str, message: str, expected: type[ClientError]) -> None:
    error = error_from_status(status, message)
    assert type(error) is expected
    assert str(error) == message


@pytest.mark.parametrize(("code", "expected"), list(BY_CODE.items()))
def test_the_code_decides_whatever_status_and_text_say(code: str, expected: type[ClientError]) -> None:
    text = "failed to connect: the deadline passed; retry after 9 s"
    for status in ("UNAVAILABLE", "INTERNAL", "CANCELLED"):
        error = error_from_status(status, text, [("other", "x"), (CODE, code)])
        assert (type(error), str(error), error.code, error.retry_after_s) == (expected, text, code, None)


def test_an_unknown_code_of_a_newer_server_falls_back_to_its_status() -> None:
    error = error_from_status("UNAVAILABLE", "Socket closed", [(CODE, "moved")])
    assert type(error) is OverloadedError and error.code == "moved"


@pytest.mark.parametrize(
    ("sent", "seconds"), [("12.5", 12.5), ("3", 3.0), (None, None), ("soon", None), ("-1", None), ("inf", None)]
)
def test_an_overloaded_server_says_when_to_come_back(sent: str | None, seconds: float | None) -> None:
    metadata = [(CODE, "queue_full"), *([] if sent is None else [(RETRY_AFTER_S, sent)])]
    error = error_from_status("UNAVAILABLE", "full; retry after 99 s", metadata)
    assert isinstance(error, OverloadedError) and error.retry_after_s == seconds
    named = error.of_request("id", 3, "image 3")
    assert (named.retry_after_s, named.code, str(named)) == (seconds, "queue_full", "image 3: full; retry after 99 s")


def test_a_stage_without_a_gateway_says_its_code_behind_the_secret_that_was_sent() -> None:
    said = """in ensemble 'id3pm', [request id: 7] TAG{"code": "queue_full", "retry_after_s": 3} 9 wait"""
    error = error_from_status("UNAVAILABLE", said, tag="TAG")
    assert (type(error), str(error), error.code, error.retry_after_s) == (OverloadedError, "9 wait", "queue_full", 3.0)
    for tag in ("", "another"):
        error = error_from_status("INVALID_ARGUMENT", said, tag=tag)
        assert (type(error), error.code, error.retry_after_s) == (InvalidRequestError, "", None)
    assert error_from_status("INTERNAL", "TAG[1] x", tag="TAG").code == ""


def test_a_message_is_never_empty() -> None:
    assert str(error_from_status("INTERNAL", "")) == "the server answered INTERNAL without a message"


def test_errors_are_also_what_python_calls_them() -> None:
    assert issubclass(InvalidRequestError, ValueError)
    assert issubclass(ConnectionFailedError, (UnavailableError, ConnectionError))
    assert issubclass(DeadlineExceededError, TimeoutError)
    assert issubclass(ClosedClientError, (CancelledRequestError, RuntimeError))


@pytest.mark.parametrize("name", [name for name in id3pm_client.__all__ if name.endswith("Error")])
def test_an_error_keeps_its_message_index_and_id_across_processes(name: str) -> None:
    error = getattr(id3pm_client, name)("too late", index=3, request_id="a")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.index, copy.request_id) == (type(error), "too late", 3, "a")


def test_the_public_names_are_exactly_those_listed() -> None:
    private = {name for name in vars(id3pm_client) if name.startswith("_") and name != "__version__"}
    modules = {"latent"}  # there once it was imported
    assert sorted(set(vars(id3pm_client)) - private - modules) == sorted(id3pm_client.__all__)


def test_every_error_is_public() -> None:
    def tree(cls: type[ClientError]) -> set[str]:
        return {cls.__name__}.union(*(tree(child) for child in cls.__subclasses__()))

    assert tree(ClientError) == {name for name in id3pm_client.__all__ if name.endswith("Error")}
