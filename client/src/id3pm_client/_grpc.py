"""Triton's gRPC protocol; no other file imports `tritonclient` or `grpc`.

Messages and stub are those of `tritonclient`. Its clients are not used: they leave out the trailing metadata of an
error, in which the server says its code.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import Callable, Generator
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import grpc
import grpc.aio
import tritonclient.grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import serialize_byte_tensor

from id3pm_client._connection import REQUEST_ID, Connection
from id3pm_client._contract import MODELS
from id3pm_client._errors import (
    ERROR_TAG,
    CancelledRequestError,
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
from id3pm_client._transport import SETTLE_S, Outcome
from id3pm_client._types import Tensors

_POLL_S = 0.01
Metadata: TypeAlias = tuple[tuple[str, str], ...]
_CHANNEL_ARGS = [
    # A photograph may be large; the server limits it.
    ("grpc.max_send_message_length", 2**31 - 1),
    ("grpc.max_receive_message_length", 2**31 - 1),
    # gRPC waits up to two minutes before it reconnects, and fails every call meanwhile: a restarted server is back
    # sooner.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A silent loss of the connection: after 20 s without a byte the server is sent a keepalive ping, and after 10 more
    # the call fails and is sent again. A server that Triton alone guards must allow these pings: deploy/README.md.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
]


class GrpcTransport:
    """Blocking transport over one gRPC channel; thread-safe."""

    def __init__(self, connection: Connection) -> None:
        """Opens the channel; it connects with the first call."""
        self._connection = connection
        self._channel = _open(grpc, connection)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._metadata = tuple(connection.headers.items())
        self._error_tag = _new_tag()
        self._calls: set[grpc.Future] = set()
        self._closed = False

    def submit(self, call: Call, timeout_s: float, on_done: Callable[[Outcome], None]) -> Callable[[], None]:
        """Sends `call`; see `_transport.SyncTransport.submit`."""

        def done(answer: grpc.Future) -> None:
            try:
                outcome = _outcome(call, answer.result())
            except grpc.FutureCancelledError:
                outcome = CancelledRequestError("the request was given up by this client")
            except grpc.RpcError as error:
                outcome = self._typed(error)
            self._calls.discard(answer)
            on_done(outcome)

        request = _request(call, timeout_s, self._error_tag)
        try:
            with self._typed_errors():
                answer = self._stub.ModelInfer.future(
                    request, metadata=_routed(self._metadata, call), timeout=timeout_s + SETTLE_S
                )
        except ClosedClientError as error:
            on_done(error)
            return _nothing
        self._calls.add(answer)
        answer.add_done_callback(done)
        cancel: Callable[[], None] = answer.cancel
        return cancel

    def server_metadata(self, timeout_s: float) -> tuple[str, str]:
        """Name and version of the server."""
        with self._typed_errors():
            answer = self._stub.ServerMetadata(
                service_pb2.ServerMetadataRequest(), metadata=self._metadata, timeout=timeout_s
            )
        return answer.name, answer.version

    def is_ready(self, model: str | None, timeout_s: float) -> bool:
        """Whether the server, or one model of it, takes requests."""
        method, request = _readiness(self._stub, model)
        with self._typed_errors():
            return bool(method(request, metadata=self._metadata, timeout=timeout_s).ready)

    def close(self) -> None:
        """Closes the channel; calls that do not end by themselves soon end with it."""
        self._closed = True
        until = time.monotonic() + SETTLE_S
        while self._calls and time.monotonic() < until:
            time.sleep(_POLL_S)
        self._channel.close()

    def _typed(self, error: grpc.RpcError) -> ClientError:
        typed = _typed(error, self._connection, self._error_tag)
        if self._closed and type(typed) is CancelledRequestError and not typed.code:
            return ClosedClientError(str(typed))
        return typed

    @contextlib.contextmanager
    def _typed_errors(self) -> Generator[None, None, None]:
        try:
            yield
        except grpc.RpcError as error:
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
        self._metadata = tuple(connection.headers.items())
        self._error_tag = _new_tag()
        self._channel: grpc.aio.Channel | None = None
        self._made: service_pb2_grpc.GRPCInferenceServiceStub | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls = 0
        self._closed = False

    @property
    def _stub(self) -> service_pb2_grpc.GRPCInferenceServiceStub:
        if self._closed:
            raise ClosedClientError("this connection has been closed")
        loop = asyncio.get_running_loop()
        if self._made is None or self._loop is not loop:
            self._channel = _open(grpc.aio, self._connection)
            self._made = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
            self._loop = loop
        return self._made

    async def infer(self, call: Call, timeout_s: float) -> Tensors:
        """Sends `call` and waits; see `_transport.AsyncTransport.infer`."""
        request = _request(call, timeout_s, self._error_tag)
        self._calls += 1
        try:
            answer = await self._unary(
                self._stub.ModelInfer, request, timeout_s + SETTLE_S, _routed(self._metadata, call)
            )
        finally:
            self._calls -= 1
        outcome = _outcome(call, answer)
        if isinstance(outcome, ClientError):
            raise outcome
        return outcome

    async def server_metadata(self, timeout_s: float) -> tuple[str, str]:
        """Name and version of the server."""
        answer = await self._unary(self._stub.ServerMetadata, service_pb2.ServerMetadataRequest(), timeout_s)
        return answer.name, answer.version

    async def is_ready(self, model: str | None, timeout_s: float) -> bool:
        """Whether the server, or one model of it, takes requests."""
        return bool((await self._unary(*_readiness(self._stub, model), timeout_s)).ready)

    async def close(self) -> None:
        """Closes the channel; calls that do not end by themselves soon end with `asyncio.CancelledError`."""
        self._closed = True
        if self._channel is not None and self._loop is asyncio.get_running_loop():
            until = time.monotonic() + SETTLE_S
            while self._calls and time.monotonic() < until:
                await asyncio.sleep(_POLL_S)
            await self._channel.close()

    async def _unary(
        self, method: grpc.aio.UnaryUnaryMultiCallable, request: object, timeout_s: float, metadata: Metadata = ()
    ) -> Any:
        """The answer of a method, a message of the class that belongs to it."""
        try:
            return await method(request, metadata=metadata or self._metadata, timeout=timeout_s)
        except grpc.RpcError as error:
            raise _typed(error, self._connection, self._error_tag) from None


def _routed(metadata: Metadata, call: Call) -> Metadata:
    """The metadata of a call, with the id by which proxies choose a server."""
    return (*metadata, (REQUEST_ID, call.routed_by)) if call.routed_by else metadata


def _open(kind: ModuleType, connection: Connection) -> grpc.Channel | grpc.aio.Channel:
    """A channel of `grpc` or of `grpc.aio`."""
    options: list[tuple[str, int | str]] = (
        [*_CHANNEL_ARGS, NO_PROXY_ARG] if is_local(connection.url) else [*_CHANNEL_ARGS]
    )
    security = connection.security
    if connection.name:
        options.append(("grpc.default_authority", connection.name))
        if security.ssl:
            options.append(("grpc.ssl_target_name_override", connection.name.rpartition(":")[0]))
    if not security.ssl:
        return kind.insecure_channel(connection.url, options=options)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=_content(security.root_certificates),
        private_key=_content(security.client_key),
        certificate_chain=_content(security.client_certificate),
    )
    return kind.secure_channel(connection.url, credentials, options=options)


def _content(path: str | os.PathLike[str] | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()


def _readiness(
    stub: service_pb2_grpc.GRPCInferenceServiceStub, model: str | None
) -> tuple[grpc.UnaryUnaryMultiCallable, object]:
    """The method that says whether the server, or a model, is ready, and its request."""
    if model is None:
        return stub.ServerReady, service_pb2.ServerReadyRequest()
    return stub.ModelReady, service_pb2.ModelReadyRequest(name=model)


def _new_tag() -> str:
    return f"id3pm-{secrets.token_hex(16)}"


def _request(call: Call, timeout_s: float, error_tag: str) -> service_pb2.ModelInferRequest:
    """The `ModelInferRequest` of a call."""
    request = service_pb2.ModelInferRequest(model_name=call.model, id=call.request_id)
    for name, array in call.inputs.items():
        datatype = MODELS[call.model].inputs[name]
        request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        content = serialize_byte_tensor(array).item() if datatype == "BYTES" else array.tobytes()
        request.raw_input_contents.append(content)
    for name in call.outputs:
        request.outputs.add(name=name)
    request.parameters[ERROR_TAG].string_param = error_tag
    # The model sees `timeout`, microseconds, and can drop a request that is late; the call has a limit of its own.
    request.parameters["timeout"].int64_param = max(int(timeout_s * 1e6), 1)  # 0 would be no limit
    return request


def _outcome(call: Call, answer: service_pb2.ModelInferResponse) -> Outcome:
    """The tensors of an answer. Never raises: every call needs an outcome."""
    try:
        result = tritonclient.grpc.InferResult(answer)
        arrays: Tensors = {name: result.as_numpy(name) for name in call.outputs}
    except Exception as error:  # tritonclient has no class for it
        return InternalServerError(f"the server's answer cannot be read: {type(error).__name__}: {error}")
    return {name: array for name, array in arrays.items() if array is not None}


def _nothing() -> None:
    """There is no call to give up."""


def _typed(error: grpc.RpcError, connection: Connection, error_tag: str) -> ClientError:
    typed = error_from_status(error.code().name, error.details() or "", error.trailing_metadata() or (), error_tag)
    if isinstance(typed, WrongEndpointError):
        return typed.reworded(_wrong_endpoint(connection, str(typed)))
    if isinstance(typed, (ConnectionFailedError, DeadlineExceededError)):
        note = proxy_note(connection.url)
        typed = typed.reworded(f"{typed}{note}")
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
