"""Control requests to the stages of a running server over plain HTTP, without a client library."""

from __future__ import annotations

import errno
import http.client
import json
import socket
from typing import Any

from id3pm.errors import ServerError

EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
"""Error numbers if this process, or the machine, has no room for another file or connection."""
TIMEOUT_S = 5.0
UNIX = "unix:"  # as gRPC writes the address of a Unix socket


class ExhaustedError(ServerError):
    """This process has no room for a connection, which is no fault of the server."""


class AnswerTimeoutError(ServerError):
    """The server gave no answer in time."""


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def connection_to(address: str, timeout_s: float) -> http.client.HTTPConnection:
    """A connection, which opens with its first request. Unlike urllib, it uses no proxy.

    Args:
        address: `host:port`, or `unix:PATH` for a socket of this machine.
        timeout_s: Seconds to wait for each part of an answer.
    """
    if address.startswith(UNIX):
        return _UnixConnection(address.removeprefix(UNIX), timeout_s)
    return http.client.HTTPConnection(address, timeout=timeout_s)


def is_exhausted(error: BaseException) -> bool:
    """Whether an error is about the room in this process, or on this machine."""
    return isinstance(error, OSError) and error.errno in EXHAUSTED


def refuses(address: str, timeout_s: float = TIMEOUT_S) -> str | None:
    """The reason why no client can connect to an address; `None` if it accepts connections.

    Raises:
        ExhaustedError: There is no room for a connection.
    """
    connection = connection_to(address, timeout_s)
    try:
        connection.connect()
    except OSError as error:
        if is_exhausted(error):
            raise ExhaustedError(f"cannot connect to {address}: {error}") from error
        return str(error)
    finally:
        connection.close()
    return None


def is_ready(address: str, timeout_s: float = TIMEOUT_S) -> bool:
    """Whether Triton at this address reports that it and all its models are ready."""
    try:
        status, _ = exchange(address, "GET", "/v2/health/ready", None, timeout_s)
    except ServerError:
        return False
    return status == 200


def control(address: str, model: str, op: str, *arguments: str, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """Sends a control request to a stage's model.

    Args:
        address: The server's HTTP, as in `connection_to`.
        model: `denoiser_64` or `super_resolution`.
        op: One of `wire.CONTROL_OPS`.
        *arguments: Arguments of the operation: a request id, and for `watch` the step to wait for.
        timeout_s: Seconds to wait for the answer; a healthy model takes milliseconds, or 5 s more for `watch`.

    Raises:
        ServerError: The server cannot be reached, or the model gave no valid answer.
    """
    data = [op, *arguments]
    body = {
        "inputs": [{"name": "control", "shape": [1, len(data)], "datatype": "BYTES", "data": data}],
        "outputs": [{"name": "status", "parameters": {"binary_data": False}}],
    }
    status, answer = exchange(address, "POST", f"/v2/models/{model}/infer", json.dumps(body), timeout_s)
    try:
        decoded = json.loads(answer)
        if status != 200:
            raise ServerError(f"{model} refused control {op}: {decoded['error']}")
        state = json.loads(decoded["outputs"][0]["data"][0])
    except (ValueError, LookupError, TypeError) as error:
        raise ServerError(f"{model} gave no sensible answer to control {op}: {answer[:200]!r}") from error
    if not isinstance(state, dict):
        raise ServerError(f"{model} gave no sensible answer to control {op}: {answer[:200]!r}")
    return state


def exchange(address: str, method: str, path: str, body: str | None, timeout_s: float) -> tuple[int, bytes]:
    """Status and body of the answer to one HTTP request.

    Args:
        address: As in `connection_to`.
        method: Of HTTP.
        path: Of the request.
        body: Its body, if it has one.
        timeout_s: Seconds to wait for each part of the answer.

    Raises:
        AnswerTimeoutError: There was none in time.
        ExhaustedError: There is no room to send it.
        ServerError: The server cannot be reached, or went away.
    """
    connection = connection_to(address, timeout_s)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read()
    except TimeoutError as error:
        raise AnswerTimeoutError(f"no answer from the server on {address} within {timeout_s:g} s") from error
    except (OSError, http.client.HTTPException) as error:
        kind = ExhaustedError if is_exhausted(error) else ServerError
        raise kind(f"no answer from the server on {address}: {error}") from error
    finally:
        connection.close()
