"""The connection of the gateway's event loop to the private Triton process.

A `ModelInfer` call is never cancelled, nor given a deadline of gRPC's, which cancels it as well: a Triton before 25.04
may die of a cancellation that arrives together with the answer (triton-inference-server/server#7368, #8034). The time
limit of the work is a parameter of the request, which the stages keep, and they are told by a control request where a
caller has gone (`in_flight`).
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import aiohttp
import grpc
import grpc.aio
from tritonclient.grpc import service_pb2

from id3pm.error_codes import ERROR_CODES
from id3pm.serving.gateway.grpc_types import InferRequest, InferResponse
from id3pm.serving.gateway.origin import Origin
from id3pm.serving.gateway.triton_errors import triton_error
from id3pm.serving.launcher.control import UNIX
from id3pm.serving.launcher.health import Addresses, Health
from id3pm.serving.protocol import error_envelope, limits
from id3pm.serving.protocol.error_envelope import ERROR_TAG
from id3pm.serving.protocol.status import RefusedError, code_of_http, without_paths

Metadata = Sequence[tuple[str, str]]
SERVICE = "inference.GRPCInferenceService"
_TRACE = ("traceparent", "tracestate")
_CHANNEL = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),  # Triton is on this machine, whatever `http_proxy` says
]
_CONTROL_S = 8.0  # a watch is answered after 5 s at the latest


class HttpAnswer(NamedTuple):
    """An answer of Triton over HTTP."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Upstream:
    """Connections to one Triton process; make one inside the event loop."""

    def __init__(self, addresses: Addresses, health: Health) -> None:
        self.addresses = addresses
        self.channel = grpc.aio.insecure_channel(addresses.grpc, options=_CHANNEL)
        self._health = health
        self._error_tag = f"id3pm-{secrets.token_hex(16)}"  # see `error_envelope`
        self._session = _session(addresses.http)
        self._calls: set[asyncio.Task[bytes]] = set()
        self._infer = self.channel.unary_unary(
            f"/{SERVICE}/ModelInfer",
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
        )  # the answer as bytes, which some callers get as they are

    async def get(self, path: str) -> HttpAnswer:
        """Gets an answer of Triton over HTTP.

        Raises:
            RefusedError: Triton answered with an error, cannot be reached, or ended meanwhile.
        """
        return await self._get(self._session, self.addresses.http, path)

    async def metrics(self) -> str:
        """Triton's own `/metrics`.

        Raises:
            RefusedError: As `get`.
        """
        async with _session(self.addresses.metrics) as session:
            return (await self._get(session, self.addresses.metrics, "/metrics")).body.decode()

    async def _get(self, session: aiohttp.ClientSession, address: str, path: str) -> HttpAnswer:
        host = "localhost" if address.startswith(UNIX) else address
        try:
            async with session.get(f"http://{host}{path}") as answer:
                content = await answer.read()
        except (aiohttp.ClientError, OSError) as error:
            raise self._health.unavailable() from error
        if answer.status >= 400:
            status = ERROR_CODES[code_of_http(answer.status)].grpc
            raise triton_error(self._health, status, _error_of(content))
        return HttpAnswer(answer.status, answer.headers, content)

    async def infer_bytes(
        self, message: InferRequest, timeout_s: float | None = None, metadata: Metadata = ()
    ) -> bytes:
        """Sends a `ModelInferRequest`; gives the bytes of the `ModelInferResponse`.

        The call itself goes on where this coroutine is cancelled, or the time is over.

        Args:
            message: The request.
            timeout_s: Seconds to wait.
            metadata: Names and values to send along.

        Raises:
            RefusedError: Triton or the model answered with an error, or not in time.
        """
        message.parameters[ERROR_TAG].string_param = self._error_tag
        call = asyncio.ensure_future(self._send(message, tuple(metadata)))
        self._calls.add(call)
        call.add_done_callback(self._ended)
        await asyncio.wait([call], timeout=timeout_s)
        if not call.done():
            raise RefusedError("deadline_exceeded", f"{message.model_name} did not answer within {timeout_s:g} s")
        try:
            return call.result()
        except grpc.aio.AioRpcError as error:
            raise self.error_of(error, message.id) from error

    async def _send(self, message: InferRequest, metadata: Metadata) -> bytes:
        return bytes(await self._infer(message, metadata=metadata))

    def _ended(self, call: asyncio.Task[bytes]) -> None:
        self._calls.discard(call)
        if not call.cancelled():
            call.exception()  # a caller may not have waited for it

    async def infer(
        self, message: InferRequest, timeout_s: float | None = None, metadata: Metadata = ()
    ) -> InferResponse:
        """As `infer_bytes`; gives the `ModelInferResponse`."""
        response: InferResponse = service_pb2.ModelInferResponse.FromString(
            await self.infer_bytes(message, timeout_s, metadata)
        )
        return response

    async def control(self, model: str, *words: str, origin: Origin) -> dict[str, Any]:
        """Sends a control request to a stage.

        Args:
            model: The stage's model.
            words: Operation, request id and further arguments.
            origin: Owner of the request that it is about, and the caller.

        Raises:
            RefusedError: It was answered with an error.
        """
        message = service_pb2.ModelInferRequest(model_name=model)
        message.inputs.add(name="control", datatype="BYTES", shape=[1, len(words)]).contents.bytes_contents.extend(
            word.encode() for word in words
        )
        message.outputs.add(name="status")
        origin.mark(message)
        answer = json.loads(texts(outputs(await self.infer(message, _CONTROL_S))["status"])[0])
        assert isinstance(answer, dict)
        return answer

    def error_of(self, error: grpc.aio.AioRpcError, request_id: str = "") -> RefusedError:
        """The error for the caller, from a gRPC error of a request with this id."""
        message = error.details() or ""
        said = error_envelope.read(self._error_tag, message)
        if said is not None:
            return RefusedError(said.code, without_paths(said.text), retry_after_s=said.retry_after_s)
        return triton_error(self._health, error.code().name, message, request_id)

    async def close(self) -> None:
        """Closes all connections, when the calls in flight have ended or have been given time for it."""
        await self._session.close()
        if self._calls:
            await asyncio.wait(self._calls, timeout=limits.CLOSE_S)
        await self.channel.close()


def trace_of(headers: Iterable[tuple[str, object]]) -> Metadata:
    """The headers, or gRPC metadata, that name a caller's trace: they are sent along."""
    return [(name.lower(), str(value)) for name, value in headers if name.lower() in _TRACE]


def _error_of(content: bytes) -> str:
    """The message in the body of an HTTP error of Triton's."""
    try:
        return str(json.loads(content)["error"])
    except (ValueError, LookupError, TypeError):
        return content.decode(errors="replace") or "Triton answered with an error and no message"


def _session(address: str) -> aiohttp.ClientSession:
    # One connection per request: Triton may close a kept one at the moment when it is used again.
    kept: dict[str, Any] = {"limit": 0, "force_close": True}
    path = address.removeprefix(UNIX)
    connector = aiohttp.TCPConnector(**kept) if path == address else aiohttp.UnixConnector(path, **kept)
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None),
        skip_auto_headers=("User-Agent", "Accept-Encoding"),
    )


class Upstreams:
    """The `Upstream` of the current Triton process."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._current: Upstream | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def get(self, *, new_work: bool = True) -> Upstream:
        """Raises `RefusedError` where `Health.require` does."""
        addresses = self._health.require(new_work=new_work)
        if self._current is None or self._current.addresses != addresses:
            self._discard()
            self._current = Upstream(addresses, self._health)
        return self._current

    def _discard(self) -> None:
        if self._current is not None:
            task = asyncio.ensure_future(self._current.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
            self._current = None

    async def close(self) -> None:
        """Closes all connections."""
        self._discard()
        if self._closing:
            await asyncio.wait(self._closing, timeout=_CONTROL_S)


def outputs(response: InferResponse) -> dict[str, bytes]:
    """The raw bytes of every output tensor of a `ModelInferResponse`."""
    return {tensor.name: raw for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True)}


def texts(raw: bytes) -> list[str]:
    """The strings of a BYTES tensor."""
    found = []
    while raw:
        length = int.from_bytes(raw[:4], "little")
        found.append(raw[4 : 4 + length].decode())
        raw = raw[4 + length :]
    return found
