"""Triton's gRPC protocol through `tritonclient`; no other file imports it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, Protocol

import tritonclient.grpc
import tritonclient.grpc.aio
from tritonclient.utils import InferenceServerException

from id3pm_client._connection import Connection
from id3pm_client._contract import MODELS
from id3pm_client._errors import (
    ClientError,
    ClosedClientError,
    ConnectionFailedError,
    DeadlineExceededError,
    InternalServerError,
    WrongEndpointError,
    error_from_status,
)
from id3pm_client._proxy import NO_PROXY_ARG, is_local, proxy_note
from id3pm_client._request import Call
from id3pm_client._transport import Outcome
from id3pm_client._types import Array, Tensors

_CHANNEL_ARGS = [
    # A photograph may be large; its limit is the server's business.
    ("grpc.max_send_message_length", 2**31 - 1),
    ("grpc.max_receive_message_length", 2**31 - 1),
    # gRPC waits up to two minutes before it reconnects, and fails every call meanwhile: a restarted server is back
    # sooner.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A silent loss of the connection: after 20 s without a byte the server is sent a keepalive ping, and after 10 more
    # the call fails and is sent again. A server that Triton alone guards must allow the question: deploy/README.md.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
]


class _Result(Protocol):
    """An answer of `tritonclient`."""

    def as_numpy(self, name: str) -> Array | None: ...


class _Metadata(Protocol):
    name: str
    version: str


class _AsyncClient(Protocol):
    """A client of `tritonclient.grpc.aio`, as far as it is used here."""

    async def infer(self, *, headers: Mapping[str, str], **request: Any) -> _Result: ...
    async def get_server_metadata(self, *, headers: Mapping[str, str], client_timeout: float) -> _Metadata: ...
    async def is_server_ready(self, *, headers: Mapping[str, str], client_timeout: float) -> bool: ...
    async def is_model_ready(self, model: str, /, *, headers: Mapping[str, str], client_timeout: float) -> bool: ...
    async def close(self) -> None: ...


class GrpcTransport:
    """Blocking transport over one gRPC channel; thread-safe."""

    def __init__(self, connection: Connection) -> None:
        """Opens the channel; it connects with the first call."""
        self._connection = connection
        self._client = tritonclient.grpc.InferenceServerClient(**_settings(connection))
        self._headers = dict(connection.headers)
        self._closed = False

    def submit(self, call: Call, timeout_s: float, on_done: Callable[[Outcome], None]) -> Callable[[], None]:
        """Sends `call`; see `_transport.SyncTransport.submit`."""

        def done(result: _Result, error: InferenceServerException | None) -> None:
            on_done(_outcome(call, result) if error is None else self._typed(error))

        request = _request(call, timeout_s)
        try:
            with self._typed_errors():
                context = self._client.async_infer(callback=done, headers=self._headers, **request)
        except ClosedClientError as error:
            on_done(error)
            return _nothing
        cancel: Callable[[], None] = context.cancel
        return cancel

    def server_metadata(self, timeout_s: float) -> tuple[str, str]:
        """Name and version of the server."""
        with self._typed_errors():
            answer = self._client.get_server_metadata(headers=self._headers, client_timeout=timeout_s)
        return answer.name, answer.version

    def is_ready(self, model: str | None, timeout_s: float) -> bool:
        """Whether the server, or one model of it, takes requests."""
        with self._typed_errors():
            if model is None:
                return bool(self._client.is_server_ready(headers=self._headers, client_timeout=timeout_s))
            return bool(self._client.is_model_ready(model, headers=self._headers, client_timeout=timeout_s))

    def close(self) -> None:
        """Closes the channel; it ends the calls that are under way."""
        self._closed = True
        self._client.close()

    def _typed(self, error: InferenceServerException) -> ClientError:
        return _typed(error, self._connection)

    @contextlib.contextmanager
    def _typed_errors(self) -> Generator[None, None, None]:
        try:
            yield
        except InferenceServerException as error:
            raise self._typed(error) from None
        except ValueError as error:  # what gRPC raises where a closed channel is to be used
            if not self._closed:
                raise
            raise ClosedClientError(str(error)) from None


class AsyncGrpcTransport:
    """asyncio transport over one gRPC channel."""

    def __init__(self, connection: Connection) -> None:
        """Remembers the connection: a channel of `grpc.aio` belongs to the event loop in which it is made."""
        self._connection = connection
        self._headers = dict(connection.headers)
        self._made: _AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    @property
    def _client(self) -> _AsyncClient:
        if self._closed:
            raise ClosedClientError("this connection has been closed")
        loop = asyncio.get_running_loop()
        if self._made is None or self._loop is not loop:
            self._made = tritonclient.grpc.aio.InferenceServerClient(**_settings(self._connection))
            self._loop = loop
        return self._made

    async def infer(self, call: Call, timeout_s: float) -> Tensors:
        """Sends `call` and waits; see `_transport.AsyncTransport.infer`."""
        try:
            result = await self._client.infer(headers=self._headers, **_request(call, timeout_s))
        except InferenceServerException as error:
            raise self._typed(error) from None
        outcome = _outcome(call, result)
        if isinstance(outcome, ClientError):
            raise outcome
        return outcome

    async def server_metadata(self, timeout_s: float) -> tuple[str, str]:
        """Name and version of the server."""
        try:
            answer = await self._client.get_server_metadata(headers=self._headers, client_timeout=timeout_s)
        except InferenceServerException as error:
            raise self._typed(error) from None
        return answer.name, answer.version

    async def is_ready(self, model: str | None, timeout_s: float) -> bool:
        """Whether the server, or one model of it, takes requests."""
        try:
            if model is None:
                return bool(await self._client.is_server_ready(headers=self._headers, client_timeout=timeout_s))
            return bool(await self._client.is_model_ready(model, headers=self._headers, client_timeout=timeout_s))
        except InferenceServerException as error:
            raise self._typed(error) from None

    async def close(self) -> None:
        """Closes the channel; the calls that are under way end with `asyncio.CancelledError`."""
        self._closed = True
        if self._made is not None and self._loop is asyncio.get_running_loop():
            await self._made.close()

    def _typed(self, error: InferenceServerException) -> ClientError:
        return _typed(error, self._connection)


def _settings(connection: Connection) -> dict[str, Any]:
    security = connection.security
    files = {
        "root_certificates": security.root_certificates,
        "certificate_chain": security.client_certificate,
        "private_key": security.client_key,
    }
    for path in files.values():
        if path is not None:
            # tritonclient opens it too, but leaves half an object behind where it cannot.
            Path(path).read_bytes()
    arguments = [*_CHANNEL_ARGS, NO_PROXY_ARG] if is_local(connection.url) else _CHANNEL_ARGS
    return {"url": connection.url, "ssl": security.ssl, **files, "channel_args": arguments}


def _request(call: Call, timeout_s: float) -> dict[str, Any]:
    """The arguments that both kinds of `tritonclient` take for one inference."""
    inputs = []
    for name, array in call.inputs.items():
        tensor = tritonclient.grpc.InferInput(name, array.shape, MODELS[call.model].inputs[name])
        inputs.append(tensor.set_data_from_numpy(array))
    return {
        "model_name": call.model,
        "inputs": inputs,
        "outputs": [tritonclient.grpc.InferRequestedOutput(name) for name in call.outputs],
        "request_id": call.request_id,
        # The model sees `timeout` and can drop a request that is late; the call itself ends at `client_timeout`.
        "timeout": max(int(timeout_s * 1e6), 1),  # in microseconds; 0 would be no limit
        "client_timeout": timeout_s,
    }


def _outcome(call: Call, result: _Result) -> Outcome:
    """The tensors of an answer. Never raises: every call needs an outcome."""
    try:
        arrays = {name: result.as_numpy(name) for name in call.outputs}
    except Exception as error:  # tritonclient has no class for it
        return InternalServerError(f"the server's answer cannot be read: {type(error).__name__}: {error}")
    return {name: array for name, array in arrays.items() if array is not None}


def _nothing() -> None:
    """There is no call to give up."""


def _typed(error: InferenceServerException, connection: Connection) -> ClientError:
    typed = error_from_status(str(error.status() or "").removeprefix("StatusCode."), error.message() or "")
    if isinstance(typed, WrongEndpointError):
        return WrongEndpointError(_wrong_endpoint(connection, str(typed)))
    if isinstance(typed, (ConnectionFailedError, DeadlineExceededError)):
        note = proxy_note(connection.url)
        typed = type(typed)(f"{typed}{note}")
        typed.note = note
    return typed


def _wrong_endpoint(connection: Connection, said: str) -> str:
    url = connection.url
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return f"{url}: its certificate is not trusted; pass root_certificates: {said}"
    if connection.security.ssl:
        return f"{url} does not speak TLS: leave ssl out, or give the port that does"
    kind = "is an HTTP port" if "http1" in said else "does not speak gRPC, perhaps HTTP or TLS"
    return f"{url} {kind}: this client needs the server's gRPC port, usually 8001 (HTTP has 8000), and ssl=True for TLS"
