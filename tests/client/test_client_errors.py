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
from id3pm_client._errors import error_from_status

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
    ("CANCELLED", "Channel closed!", ClosedClientError),
    ("CANCELLED", "the server shut down before the request was done", OverloadedError),
    ("CANCELLED", "Received RST_STREAM with error code 8", ConnectionFailedError),
    ("UNAVAILABLE", "the deadline passed at step 3 of 25", DeadlineExceededError),
    ("UNAVAILABLE", "the deadline cannot be met: 1 s are left, and the steps alone take 9 s", DeadlineExceededError),
    ("DEADLINE_EXCEEDED", "the deadline cannot be met: 1 s are left", DeadlineExceededError),
    ("RESOURCE_EXHAUSTED", "512 requests are in flight, as many as are allowed: retry after 1 s", OverloadedError),
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


@pytest.mark.parametrize(
    "noise",
    [
        "in ensemble 'id3pm', ",
        "[request id: 3fa85f64-5717-4562-b3fc-2c963f66afa6] ",
        "in ensemble 'id3pm_photo', [request id: 7] ",
        "[request id: 7] in ensemble 'id3pm', ",
    ],
)
def test_tritons_prefixes_are_cut_off(noise: str) -> None:
    assert str(error_from_status("INVALID_ARGUMENT", f"{noise}seed is missing")) == "seed is missing"


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        ("the queue holds 31 s of work; retry after 12.5 s", 12.5),
        ("draining; retry after 3 s, or elsewhere", 3.0),
        ("queue full; try again later", None),
    ],
)
def test_an_overloaded_server_says_when_to_come_back(message: str, seconds: float | None) -> None:
    error = error_from_status("UNAVAILABLE", f"in ensemble 'id3pm', {message}")
    assert isinstance(error, OverloadedError)
    assert error.retry_after_s == seconds
    assert error.of_request("id", 3, "image 3").retry_after_s == seconds


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
