"""The public gRPC port: an allow-list of Triton's methods, passed on as bytes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2

from id3pm.gateway.access import MODELS, Access
from id3pm.gateway.asked import read_message
from id3pm.gateway.counters import Counters
from id3pm.gateway.flights import Flights
from id3pm.gateway.health import Health
from id3pm.gateway.journal import Journal, note
from id3pm.gateway.refusal import RefusedError
from id3pm.gateway.upstream import SERVICE, Upstream, Upstreams

logger = logging.getLogger(__name__)
T = TypeVar("T")
QUESTIONS = ("ServerMetadata", "ModelMetadata", "ModelConfig", "ModelStatistics")
_TRACE = ("traceparent", "tracestate")


class RpcGateway(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Rules of the public gRPC port."""

    def __init__(
        self,
        health: Health,
        upstreams: Upstreams,
        flights: Flights,
        counters: Counters,
        access: Access,
        journal: Journal,
    ) -> None:
        self._health = health
        self._upstreams = upstreams
        self._flights = flights
        self._counters = counters
        self._access = access
        self._journal = journal
        unary: dict[str, Callable[[bytes, Any], Awaitable[bytes]]] = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ModelInfer": self._infer,
            **{name: self._question(name) for name in QUESTIONS},
        }
        self._handlers = {
            name: grpc.unary_unary_rpc_method_handler(self._guarded(name, run)) for name, run in unary.items()
        }
        self._handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(self._stream)
        self._closed = grpc.stream_stream_rpc_method_handler(self._refuse)  # what a unary caller understands, too

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        """The handler of a method; `None` is UNIMPLEMENTED."""
        service, _, method = details.method.removeprefix("/").partition("/")
        return self._handlers.get(method, self._closed) if service == SERVICE else None

    def _guarded(
        self, name: str, run: Callable[[bytes, Any], Awaitable[bytes]]
    ) -> Callable[[bytes, Any], Awaitable[bytes]]:
        """Makes errors of `run` gRPC statuses, counts, and keeps the access log."""

        async def guarded(request: bytes, context: Any) -> bytes:
            entry = self._journal.begin("grpc", name, context.peer())
            code, message = "INTERNAL", ""
            try:
                answer = await run(request, context)
                code = "OK"
                return answer
            except RefusedError as refusal:
                code, message = refusal.code, str(refusal)
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            except Exception as error:  # whatever it is, the caller must hear of it, and without internals
                logger.exception("a call failed")
                message = f"internal error ({type(error).__name__}); the server's log says more"
            finally:
                self._counters.count("grpc", code)
                self._journal.end(entry, code)
            await context.abort(grpc.StatusCode[code], message)
            raise AssertionError("abort raises")

        return guarded

    async def _live(self, request: bytes, context: Any) -> bytes:
        return bytes(service_pb2.ServerLiveResponse(live=True).SerializeToString())

    async def _ready(self, request: bytes, context: Any) -> bytes:
        return bytes(service_pb2.ServerReadyResponse(ready=self._health.ready).SerializeToString())

    async def _model_ready(self, request: bytes, context: Any) -> bytes:
        name = service_pb2.ModelReadyRequest.FromString(request).name
        return bytes(service_pb2.ModelReadyResponse(ready=self._health.ready and name in MODELS).SerializeToString())

    def _question(self, name: str) -> Callable[[bytes, Any], Awaitable[bytes]]:
        async def ask(request: bytes, context: Any) -> bytes:
            self._access.caller(_authorization(context))
            upstream = self._upstreams.get(new_work=False)
            return await _call(upstream, name, request, context)

        return ask

    async def _infer(self, request: bytes, context: Any) -> bytes:
        caller = self._access.caller(_authorization(context))
        asked, request = read_message(request)
        note(caller=caller.name, model=asked.model, id=asked.id, bytes_in=len(request))
        asked.check(caller)
        upstream = self._upstreams.get(new_work=asked.control is None)
        work = _call(upstream, "ModelInfer", request, context)
        return await (work if asked.control is not None else self._flights.fly(asked.id, upstream, work))

    async def _refuse(self, requests: AsyncIterator[bytes], context: Any) -> None:
        self._counters.count("grpc", "PERMISSION_DENIED")
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "this method is closed on this server")

    async def _stream(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """`ModelStreamInfer`: many requests on one stream; with these models each has one answer."""
        open_ids: list[str] = []
        upstream: Upstream | None = None
        code, message, gone = "OK", "", False
        refusals: list[RefusedError] = []
        entry = self._journal.begin("grpc", "ModelStreamInfer", context.peer())
        try:
            caller = self._access.caller(_authorization(context))
            upstream = self._upstreams.get()
            call = upstream.channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")(metadata=_trace(context))

            async def write() -> None:
                try:
                    async for request in requests:
                        asked, request = read_message(request)
                        note(caller=caller.name, model=asked.model, id=asked.id, bytes_in=len(request))
                        asked.check(caller)
                        self._upstreams.get(new_work=asked.control is None)
                        if asked.control is None:
                            await self._flights.enter(asked.id)
                            open_ids.append(asked.id)
                        await call.write(request)
                    await call.done_writing()
                except RefusedError as refusal:
                    refusals.append(refusal)
                    call.cancel()

            writer = asyncio.ensure_future(write())
            try:
                while (response := await call.read()) is not grpc.aio.EOF:
                    answered = service_pb2.ModelStreamInferResponse.FromString(response).infer_response.id
                    if answered in open_ids:
                        open_ids.remove(answered)
                        self._flights.leave(answered)
                    yield response
            except asyncio.CancelledError:
                if not refusals:  # the caller has gone
                    raise
            finally:
                call.cancel()
                writer.cancel()
                await asyncio.wait([writer])
            for refusal in refusals:
                raise refusal
        except RefusedError as refusal:
            code, message = refusal.code, str(refusal)
        except grpc.aio.AioRpcError as error:
            assert upstream is not None
            lost = upstream.refusal(error)
            code, message = lost.code, str(lost)
        except asyncio.CancelledError:
            code, gone = "CANCELLED", True
            raise
        finally:
            self._counters.count("grpc", code)
            self._journal.end(entry, code)
            for request_id in open_ids:
                if gone and upstream is not None:
                    self._flights.abandon(request_id, upstream)
                else:
                    self._flights.leave(request_id)
        if code != "OK":
            await context.abort(grpc.StatusCode[code], message)


async def _call(upstream: Upstream, method: str, request: bytes, context: Any) -> bytes:
    """One unary call to Triton."""
    try:
        answer = await upstream.channel.unary_unary(f"/{SERVICE}/{method}")(request, metadata=_trace(context))
    except grpc.aio.AioRpcError as error:
        raise upstream.refusal(error) from error
    return bytes(answer)


def _authorization(context: Any) -> str | None:
    for name, value in context.invocation_metadata() or ():
        if name == "authorization":
            return str(value)
    return None


def _trace(context: Any) -> list[tuple[str, str]]:
    return [(name, value) for name, value in context.invocation_metadata() or () if name in _TRACE]
