"""The connection of the gateway's event loop to the private Triton process."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

import aiohttp
import grpc
import grpc.aio
from tritonclient.grpc import service_pb2

from id3pm.serving.gateway.origin import Origin
from id3pm.serving.launcher.control import UNIX
from id3pm.serving.launcher.health import Addresses, Health
from id3pm.serving.protocol.status import TOO_LATE, RefusedError, code_of, without_paths

SERVICE = "inference.GRPCInferenceService"
logger = logging.getLogger(__name__)
_PART = 256 * 1024
_CHANNEL = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),  # Triton is on this machine, whatever `http_proxy` says
]
_CONTROL_S = 8.0  # a watch is answered after 5 s at the latest
# Texts are matched as a whole or from their first word, which is Triton's or ours: what a caller wrote stands within.
_FROM = r"(?:in ensemble '\w+', )*"
# Triton's words for a Python stub that has died, with INTERNAL; the supervisor replaces it.
_DEAD_STUB = re.compile(_FROM + r"Stub process '\w+' is not healthy\.?")
# What the stages say with UNAVAILABLE: Triton has no other status for it.
_LATE = re.compile(_FROM + r"the deadline (?:passed|cannot be met)")
_LATER = re.compile(_FROM + r"(?:this server is draining|\d).* retry after \d+(?:\.\d+)? s")
# What the stages say with CANCELLED and INTERNAL, which Triton's HTTP tells like mistakes of the caller.
_CANCELLED = re.compile(_FROM + r"the (?:request was cancelled|caller cancelled|server shut down)")
_FAILED = re.compile(_FROM + r"(?:the engine failed at step \d|internal error \()")
# What Triton says of the values of a body, with INTERNAL, and of a model that gets nothing at all.
_UNREADABLE = re.compile(_FROM + r"Unable to parse")
_EMPTY = re.compile(_FROM + r"(?:\[request id: .*\] )?out of bounds index 0: request has 0 inputs")
# What Triton says, with INTERNAL, where a tensor finds no room in /dev/shm until others are done.
_NO_MEMORY = re.compile(_FROM + r"Failed to (?:increase the shared memory pool|initialize shared memory pool|allocate)")
# What gRPC says when the process at the other end has gone.
_BROKEN = (
    "RST_STREAM",
    "Stream removed",
    "Socket closed",
    "failed to connect",
    "onnection re",  # reset, refused
    "Server exiting",
    "Server is stopping",
    "Server not ready",
    "GOAWAY",
)


class HttpAnswer(NamedTuple):
    """What Triton answered over HTTP."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Upstream:
    """Connections to one Triton process; make one inside the event loop."""

    def __init__(self, addresses: Addresses, health: Health) -> None:
        self.addresses = addresses
        self.channel = grpc.aio.insecure_channel(addresses.grpc, options=_CHANNEL)
        self._health = health
        self._session = _session(addresses.http)
        self._infer = self.channel.unary_unary(
            f"/{SERVICE}/ModelInfer",
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=service_pb2.ModelInferResponse.FromString,
        )

    async def http(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> HttpAnswer:
        """One HTTP exchange; errors come as answers, too.

        Raises:
            RefusedError: Triton cannot be reached, or went away meanwhile.
        """
        data: Any = body
        if body is not None and len(body) > _PART:
            data, headers = _parts(body), {**(headers or {}), "Content-Length": str(len(body))}
        try:
            async with self._session.request(
                method, _url(self.addresses.http, path), data=data, headers=headers
            ) as answer:
                content = await answer.read()
                if answer.status >= 400:
                    return self._http_error(answer.status, content)
                return HttpAnswer(answer.status, answer.headers, content)
        except (aiohttp.ClientError, OSError) as error:
            raise self._health.unavailable() from error

    async def metrics(self) -> str:
        """Triton's own `/metrics`.

        Raises:
            RefusedError: As `http`.
        """
        try:
            async with (
                _session(self.addresses.metrics) as session,
                session.get(_url(self.addresses.metrics, "/metrics")) as answer,
            ):
                return await answer.text()
        except (aiohttp.ClientError, OSError) as error:
            raise self._health.unavailable() from error

    async def infer(self, message: Any, timeout_s: float | None = None) -> Any:
        """Sends a `ModelInferRequest`; gives the `ModelInferResponse`.

        Raises:
            RefusedError: Triton or the model answered with an error.
        """
        try:
            return await self._infer(message, timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise self.refusal(error) from error

    async def control(self, model: str, *words: str, origin: Origin) -> dict[str, Any]:
        """Sends a control request to a stage.

        Args:
            model: The stage's model.
            words: Operation, request id and what else it takes.
            origin: Whose request it is about, and who asks.

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

    def refusal(self, error: grpc.aio.AioRpcError) -> RefusedError:
        """What a caller gets to read of a gRPC error."""
        return self._refusal(error.code().name, error.details() or "")

    def _http_error(self, status: int, content: bytes) -> HttpAnswer:
        try:
            message = str(json.loads(content)["error"])
        except (ValueError, LookupError, TypeError):
            message = content.decode(errors="replace") or f"Triton answered with status {status} and no more"
        refusal = self._refusal(code_of(status), message, vague=status == 400)
        if refusal.code != code_of(status):
            status = refusal.status
        document = {"error": str(refusal), "code": refusal.code}
        return HttpAnswer(status, {"Content-Type": "application/json"}, json.dumps(document).encode())

    def _refusal(self, code: str, message: str, *, vague: bool = False) -> RefusedError:
        """What a caller gets to read; `vague` is a code that may be any: `generate` answers all errors with 400."""
        broken = code in ("UNAVAILABLE", "INTERNAL", "UNKNOWN", "CANCELLED") and any(
            word in message for word in _BROKEN
        )
        if broken or ((vague or code == "INTERNAL") and _DEAD_STUB.fullmatch(message)):
            return self._health.unavailable()
        if (vague or code == "INTERNAL") and _NO_MEMORY.match(message):
            logger.error("a request was refused: /dev/shm is full; give it more, in a container by --shm-size")
            return RefusedError("UNAVAILABLE", "the server has no shared memory left for this: retry after 1 s")
        message = without_paths(message)
        if _EMPTY.fullmatch(message):
            needed = "photo, embedding or image_64, whichever the model takes"
            return RefusedError("INVALID_ARGUMENT", f"there is nothing to make the image from: send {needed}")
        if _UNREADABLE.match(message):
            return RefusedError("INVALID_ARGUMENT", message)
        if vague and _CANCELLED.match(message):
            return RefusedError("CANCELLED", message)
        if vague and _FAILED.match(message):
            return RefusedError("INTERNAL", message)
        if vague or code == "UNAVAILABLE":
            if _LATE.match(message):
                return RefusedError("DEADLINE_EXCEEDED", message, TOO_LATE)
            if _LATER.fullmatch(message):
                return RefusedError("UNAVAILABLE", message)
        return RefusedError(code, message)

    async def close(self) -> None:
        """Closes all connections."""
        await self._session.close()
        await self.channel.close()


def _session(address: str) -> aiohttp.ClientSession:
    # One connection per request: Triton may close a kept one at the very moment it is used again.
    kept: dict[str, Any] = {"limit": 0, "force_close": True}
    path = address.removeprefix(UNIX)
    connector = aiohttp.TCPConnector(**kept) if path == address else aiohttp.UnixConnector(path, **kept)
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=None),
        skip_auto_headers=("User-Agent", "Accept-Encoding"),
    )


async def _parts(body: bytes) -> AsyncIterator[bytes]:
    """A large body piece by piece: given as a whole, the connection would copy it, and hold up the event loop."""
    view = memoryview(body)
    for start in range(0, len(body), _PART):
        yield bytes(view[start : start + _PART])


def _url(address: str, path: str) -> str:
    return f"http://{'localhost' if address.startswith(UNIX) else address}{path}"


class Upstreams:
    """The `Upstream` of the Triton process that serves now."""

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


def outputs(response: Any) -> dict[str, bytes]:
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
