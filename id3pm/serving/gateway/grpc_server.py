"""The public gRPC port: an allow-list of Triton's methods, passed on as bytes.

Every method is handled as a stream, which a unary caller does not notice. So the token is checked before the message
is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2

from id3pm.serving.gateway import grpc_health
from id3pm.serving.gateway.access_log import note
from id3pm.serving.gateway.admission import full
from id3pm.serving.gateway.auth import Caller
from id3pm.serving.gateway.connections import Connections
from id3pm.serving.gateway.context import GatewayContext
from id3pm.serving.gateway.grpc_calls import abort, address_of, authorization_of, call_triton, is_served, trace_of_call
from id3pm.serving.gateway.grpc_types import CallContext
from id3pm.serving.gateway.message_parts import check_parts
from id3pm.serving.gateway.origin import grpc_peer, origin_of
from id3pm.serving.gateway.request import parse_message, read_message
from id3pm.serving.gateway.tensor_checks import check_version
from id3pm.serving.gateway.upstream import SERVICE
from id3pm.serving.protocol import limits
from id3pm.serving.protocol.status import RefusedError, internal

logger = logging.getLogger(__name__)
QUERIES = {
    "ServerMetadata": service_pb2.ServerMetadataRequest,
    "ModelMetadata": service_pb2.ModelMetadataRequest,
    "ModelConfig": service_pb2.ModelConfigRequest,
    "ModelStatistics": service_pb2.ModelStatisticsRequest,
}
Call = Callable[[CallContext], Coroutine[Any, Any, None]]
_COPIES = 2  # of a message: as it came, and as it is sent on
_END_S = 5.0  # for requests that were cancelled to end


class RpcGateway(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Rules of the public gRPC port."""

    def __init__(self, context: GatewayContext, connections: Connections) -> None:
        self._context = context
        self._connections = connections
        self._watches = 0
        self._body_s, self._write_s = context.options.body_s, context.options.write_s
        methods: dict[str, Call] = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ModelInfer": self._infer,
            "ModelStreamInfer": self._stream,
            **{name: self._query(name) for name in QUERIES},
        }
        self._handlers = {name: self._guarded(name, run) for name, run in methods.items()}
        self._closed = self._guarded("a closed method", self._refuse)
        probes = {"Check": self._check, "Watch": self._watch}
        self._probes = {name: self._guarded(f"Health/{name}", run) for name, run in probes.items()}

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """The handler of a method; `None` is UNIMPLEMENTED."""
        service, _, method = details.method.removeprefix("/").partition("/")
        if service == grpc_health.SERVICE:
            return self._probes.get(method)
        return self._handlers.get(method, self._closed) if service == SERVICE else None

    def _guarded(self, name: str, run: Call) -> grpc.RpcMethodHandler:
        """Makes errors of `run` gRPC statuses, counts, and keeps the access log."""

        async def guarded(requests: object, context: CallContext) -> None:
            with self._connections.answering(context.peer()):
                _, refusal = await self._outcome(name, context, run(context))
            if refusal is not None:
                await abort(context, refusal)

        return grpc.stream_stream_rpc_method_handler(guarded)

    async def _outcome(
        self, name: str, context: CallContext, work: Coroutine[Any, Any, None]
    ) -> tuple[str, RefusedError | None]:
        """Answers a call, or one request of a stream; counts it, and keeps the access log.

        Returns:
            The request's id, and its error if it has one.
        """
        entry = self._context.access_log.begin("grpc", name, context.peer())
        code, refusal = "INTERNAL", None
        try:
            await work
            code = "OK"
        except RefusedError as error:
            code, refusal = error.grpc, error.with_traceback(None)  # its frames would keep the message
        except asyncio.CancelledError:
            code = "CANCELLED"
            raise
        except Exception as error:  # any error: the caller must get it, without internals
            if context.done():  # the caller has disconnected; gRPC has its own errors for that
                code = "CANCELLED"
                raise asyncio.CancelledError from error
            logger.exception("a call failed")
            refusal = internal(error)
        finally:
            self._context.counters.count("grpc", code)
            self._context.access_log.end(entry, code)
        return entry.id, refusal

    async def _live(self, context: CallContext) -> None:
        await context.write(service_pb2.ServerLiveResponse(live=True).SerializeToString())

    async def _ready(self, context: CallContext) -> None:
        await context.write(service_pb2.ServerReadyResponse(ready=self._context.health.ready).SerializeToString())

    async def _model_ready(self, context: CallContext) -> None:
        async with self._context.admission.arrival(known=False):
            query = parse_message(service_pb2.ModelReadyRequest, await self._query_message(context))
        ready = self._context.health.ready and is_served(query)
        await context.write(service_pb2.ModelReadyResponse(ready=ready).SerializeToString())

    async def _check(self, context: CallContext) -> None:
        """`grpc.health.v1.Health/Check`: needs no token, as other probes."""
        name = await self._probed(context)
        if (status := grpc_health.status_of(name, self._context.health)) == grpc_health.SERVICE_UNKNOWN:
            raise RefusedError("not_found", f"there is no {name[:64]!r}; {grpc_health.NAMES}")
        await self._write(grpc_health.response(status), context)

    async def _watch(self, context: CallContext) -> None:
        """`grpc.health.v1.Health/Watch`: every change until the caller disconnects or the service ends."""
        name = await self._probed(context)
        if self._watches >= limits.MAX_HEALTH_WATCHES:
            raise full(f"{self._watches} watches of health are open, as many as are allowed")
        self._watches += 1
        try:
            status = grpc_health.UNKNOWN
            while True:
                status = await grpc_health.changed(name, self._context.health, status)
                await self._write(grpc_health.response(status), context)
        finally:
            self._watches -= 1

    async def _probed(self, context: CallContext) -> str:
        async with self._context.admission.arrival(known=False):
            sent = await self._query_message(context)
        return str(parse_message(grpc_health.HealthCheckRequest, sent).service)

    def _query(self, name: str) -> Call:
        async def answer(context: CallContext) -> None:
            self._context.options.access.caller(authorization_of(context))
            upstream = self._context.upstreams.get(new_work=False)
            async with self._context.admission.arrival(known=True):
                query = parse_message(QUERIES[name], await self._query_message(context))
            if name != "ServerMetadata" and (name != "ModelStatistics" or query.name):  # else of all models
                check_version(query.name, query.version)
            with self._context.admission.request(work=False):
                await self._write(await call_triton(upstream, name, query.SerializeToString(), context), context)

        return answer

    async def _infer(self, context: CallContext) -> None:
        caller = self._context.options.access.caller(authorization_of(context))
        self._context.upstreams.get(new_work=False)
        with contextlib.ExitStack() as held:
            grow = held.enter_context(self._context.admission.body())
            async with self._context.admission.arrival(known=True):
                request = await self._message(context)
                grow(_COPIES * len(request))
            await self._write(await self._answer(caller, request, context, held), context)

    async def _refuse(self, context: CallContext) -> None:
        raise RefusedError("permission_denied", "this method is closed on this server")

    async def _stream(self, context: CallContext) -> None:
        """`ModelStreamInfer`: many requests on one stream, each with one answer, in their order, as from Triton."""
        caller = self._context.options.access.caller(authorization_of(context))
        self._context.upstreams.get(new_work=False)
        answers: asyncio.Queue[asyncio.Future[bytes] | None] = asyncio.Queue()
        places = asyncio.Semaphore(limits.MAX_ON_ONE_STREAM)
        unanswered: set[asyncio.Future[bytes]] = set()

        async def read() -> None:
            try:
                while (await places.acquire()) and (request := await context.read()) is not grpc.aio.EOF:
                    stream.asks()
                    answer = asyncio.ensure_future(self._streamed(caller, request, context))
                    unanswered.add(answer)
                    answers.put_nowait(answer)
            finally:
                answers.put_nowait(None)

        owner = caller.name if self._context.options.access.limited else address_of(context)
        with self._context.streams.open(owner) as stream:
            reader = asyncio.ensure_future(read())
            try:
                while (answer := await answers.get()) is not None:
                    await self._write(await answer, context)
                    unanswered.discard(answer)
                    stream.answered()
                    places.release()
                await reader
            finally:
                rest: list[asyncio.Future[Any]] = [reader, *unanswered]
                for task in rest:
                    task.cancel()
                await asyncio.wait(rest, timeout=_END_S)

    async def _streamed(self, caller: Caller, request: bytes, context: CallContext) -> bytes:
        """The answer to one request of a stream. An error is an answer, too: the others on the stream go on."""
        response = service_pb2.ModelStreamInferResponse()

        async def answer() -> None:
            with contextlib.ExitStack() as held:
                held.enter_context(self._context.admission.body())(_COPIES * len(request))
                response.infer_response.ParseFromString(await self._answer(caller, request, context, held))

        request_id, refusal = await self._outcome("ModelStreamInfer", context, answer())
        if refusal is not None:
            response.error_message, response.infer_response.id = str(refusal), request_id
            parameters = response.infer_response.parameters
            parameters["code"].string_param = refusal.code
            if refusal.retry_after_s is not None:
                parameters["retry_after_s"].double_param = refusal.retry_after_s
        response.infer_response.parameters["triton_final_response"].bool_param = True
        return bytes(response.SerializeToString())

    async def _answer(self, caller: Caller, request: bytes, context: CallContext, held: contextlib.ExitStack) -> bytes:
        """Triton's answer to a `ModelInferRequest`, which counts as in flight while `held` is open."""
        check_parts(request)
        parsed = await self._context.admission.parsed(request, functools.partial(read_message, request))
        note(caller=caller.name, model=parsed.model[:64], id=parsed.id, bytes_in=len(request))
        parsed.check(caller)
        return await self._context.infer(
            parsed, origin_of(caller, *grpc_peer(context.peer())), trace_of_call(context), held
        )

    async def _write(self, answer: bytes, context: CallContext) -> None:
        try:
            await asyncio.wait_for(context.write(answer), self._write_s)
        except asyncio.TimeoutError as error:  # noqa: UP041 - another class before Python 3.11
            raise RefusedError("request_timeout", f"the answer was not taken within {self._write_s:g} s") from error
        except Exception as error:
            # gRPC has its own errors for a disconnected caller; one may come before the call is done.
            if context.done() or isinstance(error, grpc.aio.InternalError):
                raise asyncio.CancelledError from error
            raise

    async def _query_message(self, context: CallContext) -> bytes:
        """The message of a call that asks for no work.

        Raises:
            RefusedError: As `_message`, or it is too large.
        """
        message = await self._message(context)
        if len(message) > limits.MAX_QUERY:
            raise RefusedError(
                "too_large", f"the message has {len(message)} bytes: at most {limits.MAX_QUERY} are allowed"
            )
        return message

    async def _message(self, context: CallContext) -> bytes:
        """The message of a unary call.

        Raises:
            RefusedError: It comes too slowly, or not at all.
        """
        try:
            message = await asyncio.wait_for(context.read(), self._body_s)
        except asyncio.TimeoutError as error:  # noqa: UP041 - another class before Python 3.11
            raise RefusedError(
                "request_timeout", f"the message was not there after {self._body_s:g} s, the time for one"
            ) from error
        if message is grpc.aio.EOF:
            raise RefusedError("invalid_argument", "there is no message in this call")
        return message
