"""The public HTTP port: an allow-list of Triton's HTTP endpoints."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from tritonclient.grpc import service_pb2

from id3pm.serving.gateway.access_log import note
from id3pm.serving.gateway.auth import Caller
from id3pm.serving.gateway.bodies import BodyReader, gone
from id3pm.serving.gateway.context import GatewayContext
from id3pm.serving.gateway.grpc_types import InferResponse
from id3pm.serving.gateway.http_listener import connection_of
from id3pm.serving.gateway.json_answer import generate_answer, infer_answer
from id3pm.serving.gateway.json_body import parse_object
from id3pm.serving.gateway.origin import Origin, origin_of
from id3pm.serving.gateway.request import READ_CONTROL, Request, json_length, read_json
from id3pm.serving.gateway.sse import EventStream, taken
from id3pm.serving.gateway.tensor_checks import check_version, shown
from id3pm.serving.gateway.upstream import HttpAnswer, trace_of
from id3pm.serving.launcher.health import Phase
from id3pm.serving.protocol.limits import MAX_SMALL_BODY
from id3pm.serving.protocol.served_models import SIGNATURES
from id3pm.serving.protocol.status import RefusedError, code_of_http, internal

logger = logging.getLogger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_GONE = 499  # the caller disconnected before the answer
_HEADER_LENGTH = "Inference-Header-Content-Length"
_SENT_BACK = ("Content-Type", _HEADER_LENGTH)
# Triton's other endpoints change the server or read what callers should not.
_CLOSED = ("/v2/repository", "/v2/systemsharedmemory", "/v2/cudasharedmemory", "/v2/trace", "/v2/logging")


class HttpGateway:
    """Routes and rules of the public HTTP port."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context
        self._write_s = context.options.write_s
        self._bodies = BodyReader(context.counters, context.options.max_body, context.options.body_s)
        self._origins = frozenset(context.options.allow_origins)
        self._events = EventStream(context.upstreams, context.in_flight, write_s=self._write_s)

    def app(self) -> web.Application:
        """The application of the public port."""
        # aiohttp's own limit counts what is read through other means than `_body`, which nothing here uses.
        app = web.Application(middlewares=[self._rules])
        app.on_response_prepare.append(self._headers)
        get, post = app.router.add_get, app.router.add_post
        get("/v2/health/live", self._live)
        get("/v2/health/ready", self._ready)
        get("/v2", self._pass_on)
        get("/v2/models/stats", self._pass_on)
        for prefix in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            get(f"{prefix}/ready", self._ready)
            for path in ("", "/config", "/stats"):
                get(prefix + path, self._pass_on)
            post(f"{prefix}/infer", self._work)
            post(f"{prefix}/generate", self._work)
        post("/v2/models/{model}/generate_stream", self._stream)
        return app

    def metrics_app(self) -> web.Application:
        """The application of the metrics port."""
        app = web.Application(middlewares=[self._rules])
        app.on_response_prepare.append(self._headers)
        app.router.add_get("/metrics", self._metrics)
        return app

    @web.middleware
    async def _rules(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Makes every error one JSON object, counts, and keeps the access log."""
        entry = self._context.access_log.begin("http", f"{request.method} {request.path[:128]}", request.remote or "")
        outcome = str(_GONE)
        try:
            with connection_of(request).answering():
                response = await self._answered(request, handler)
            outcome = str(response.status)
            return response
        finally:
            self._context.counters.count("http", outcome)
            self._context.access_log.end(entry, outcome)

    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        response: web.StreamResponse
        try:
            self._check_origin(request)
            response = await self._preflight(request) or await handler(request)
        except RefusedError as refusal:
            response = _error(refusal)
        except web.HTTPException as error:
            response = self._no_route(request, error)
        except Exception as error:  # any error: the caller must get it, without internals
            if gone(request):
                raise asyncio.CancelledError from error
            logger.exception("a request failed: %s %s", request.method, request.path)
            response = _error(internal(error))
        return response

    async def _live(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _ready(self, request: web.Request) -> web.Response:
        _check_path(request)
        if not self._context.health.ready:
            raise self._context.health.unavailable()
        return web.Response()

    async def _pass_on(self, request: web.Request) -> web.Response:
        """Answers a query about the server or a model, from Triton."""
        self._context.options.access.caller(request.headers.get("Authorization"))
        _check_path(request)
        return _answer(await self._context.upstreams.get(new_work=False).get(request.path))

    async def _work(self, request: web.Request) -> web.Response:
        """`infer` and `generate`."""
        caller = self._context.options.access.caller(request.headers.get("Authorization"))
        _check_path(request)
        model = request.match_info["model"]
        note(caller=caller.name, model=model)
        if model not in READ_CONTROL:  # else it depends on the body
            caller.require(model)
        if self._context.health.phase is not Phase.DRAINING:  # else it depends on the body
            self._context.upstreams.get()
        with contextlib.ExitStack() as held:
            return await self._worked(request, caller, held)

    async def _worked(self, request: web.Request, caller: Caller, held: contextlib.ExitStack) -> web.Response:
        body = await self._bodies.read(request, held.enter_context(self._context.admission.body()))
        generate = request.path.endswith("/generate")
        length = json_length(request.headers.get(_HEADER_LENGTH), len(body))
        read = functools.partial(_read, request, caller, body, length, generate=generate)
        parsed = await self._context.admission.parsed(body, read, length)
        del read, body  # as it was sent: nothing needs it any more
        trace = trace_of(request.headers.items())
        answered = await self._context.infer(parsed, _origin(request, caller), trace, held)
        found = service_pb2.ModelInferResponse.FromString(answered)
        del answered
        encode = functools.partial(_encoded, found, parsed.wanted, generate=generate)
        answer = encode() if found.ByteSize() <= MAX_SMALL_BODY else await asyncio.to_thread(encode)
        await taken(request, answer.prepare(request), self._write_s)
        await taken(request, answer.write_eof(), self._write_s)  # here, where it still counts
        return answer

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events of one image: previews and results."""
        caller = self._context.options.access.caller(request.headers.get("Authorization"))
        model = request.match_info["model"]
        if model not in ("id3pm", "id3pm_photo"):
            raise RefusedError("not_found", f"{model[:64]!r} has no generate_stream; id3pm and id3pm_photo have")
        note(caller=caller.name, model=model, bytes_in=request.content_length or 0)
        caller.require(model)
        self._context.upstreams.get()
        with contextlib.ExitStack() as held:
            body = await self._bodies.read(request, held.enter_context(self._context.admission.body()))
            held.enter_context(self._context.admission.request(work=True))
            document = await self._context.admission.parsed(body, functools.partial(parse_object, body), len(body))
            del body
            return await self._events.answer(request, _origin(request, caller), model, document, held)

    async def _metrics(self, request: web.Request) -> web.Response:
        try:
            triton = await self._context.upstreams.get(new_work=False).metrics()
        except RefusedError:  # there is no Triton now; up says so
            triton = ""
        return web.Response(text=triton + self._context.counters.text(self._context.health))

    def _no_route(self, request: web.Request, error: web.HTTPException) -> web.Response:
        if error.status == 405 and isinstance(error, web.HTTPMethodNotAllowed):
            methods = " or ".join(sorted(error.allowed_methods))
            return _plain_error(405, f"{shown(request.method)} {shown(request.path)}: use {methods}")
        if error.status == 404 and request.path.startswith(_CLOSED):
            return _plain_error(403, f"{shown(request.path)} is closed on this server")
        if error.status == 404:
            return _plain_error(404, f"there is no {shown(request.path)}; models are {', '.join(SIGNATURES)}")
        return _plain_error(error.status, error.reason)

    def _check_origin(self, request: web.Request) -> None:
        """Refuses pages of other origins: browsers send some requests without a preflight, and hide only the answer."""
        if request.method == "POST" and "Origin" in request.headers and not self._is_allowed(request):
            origin = request.headers["Origin"][:128]
            raise RefusedError(
                "permission_denied", f"origin {origin!r}: only those of --allow-origin may send requests"
            )

    async def _preflight(self, request: web.Request) -> web.Response | None:
        """The answer to a CORS preflight request."""
        if request.method != "OPTIONS" or not self._is_allowed(request):
            return None
        return web.Response(
            status=204,
            headers={
                "Access-Control-Allow-Methods": "GET, POST",
                "Access-Control-Allow-Headers": "Authorization, Content-Type, Inference-Header-Content-Length",
                "Access-Control-Max-Age": "600",
            },
        )

    async def _headers(self, request: web.Request, response: web.StreamResponse) -> None:
        connection_of(request).answered = True
        response.headers["Server"] = "id3pm"
        if self._origins:
            response.headers["Vary"] = "Origin"
        if self._is_allowed(request):
            response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
            response.headers["Access-Control-Expose-Headers"] = ", ".join(("Retry-After", "X-Request-Id", *_SENT_BACK))

    def _is_allowed(self, request: web.Request) -> bool:
        origin = request.headers.get("Origin")
        return origin is not None and ("*" in self._origins or origin in self._origins)


def _origin(request: web.Request, caller: Caller) -> Origin:
    peer = None if request.transport is None else request.transport.get_extra_info("peername")
    return origin_of(caller, *(peer[:2] if peer else (None, None)))


def _check_path(request: web.Request) -> None:
    """Refuses a path with a model, or a version of one, that is not served."""
    if "model" in request.match_info:
        check_version(request.match_info["model"], request.match_info.get("version", ""))


def _read(request: web.Request, caller: Caller, body: bytes, length: int, *, generate: bool) -> Request:
    """The body of `infer` or `generate`, read and checked."""
    model, version = request.match_info["model"], request.match_info.get("version", "")
    parsed = read_json(model, version, body, length, generate=generate)
    note(id=parsed.id, bytes_in=len(body))
    parsed.check(caller)
    return parsed


def _encoded(response: InferResponse, wanted: dict[str, Any], *, generate: bool) -> web.Response:
    """The answer to `infer` or `generate`."""
    if generate:
        return web.Response(body=generate_answer(response), content_type="application/json")
    body, length = infer_answer(response, wanted)
    if length is None:
        return web.Response(body=body, content_type="application/json")
    headers = {_HEADER_LENGTH: str(length)}
    return web.Response(body=body, content_type="application/octet-stream", headers=headers)


def _answer(answer: HttpAnswer) -> web.Response:
    headers = {name: answer.headers[name] for name in _SENT_BACK if name in answer.headers}
    return web.Response(status=answer.status, headers=headers, body=answer.body)


def _error(refusal: RefusedError) -> web.Response:
    headers = {**refusal.headers, **({"WWW-Authenticate": "Bearer"} if refusal.status == 401 else {})}
    return web.json_response(refusal.document, status=refusal.status, headers=headers)


def _plain_error(status: int, message: str) -> web.Response:
    return _error(RefusedError(code_of_http(status), message, status))
