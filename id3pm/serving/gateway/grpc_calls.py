"""A gRPC call at the gateway: its caller, its end with an error, and the same call to Triton."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio

from id3pm.serving.gateway.grpc_types import CallContext, NamedModel
from id3pm.serving.gateway.tensor_checks import check_version
from id3pm.serving.gateway.upstream import SERVICE, Metadata, Upstream, trace_of
from id3pm.serving.protocol.status import RefusedError

METADATA = {"code": "id3pm-code", "retry_after_s": "id3pm-retry-after-s"}
"""Names of an error's fields in gRPC's trailing metadata."""


async def abort(context: CallContext, refusal: RefusedError) -> None:
    """Ends a call with a status, and the error's fields as trailing metadata, unless its caller has gone meanwhile."""
    fields = tuple((METADATA[name], str(value)) for name, value in refusal.fields.items())
    try:
        await context.abort(grpc.StatusCode[refusal.grpc], str(refusal), fields)
    except Exception as error:
        if context.done() and not isinstance(error, grpc.aio.AbortError):
            raise asyncio.CancelledError from error
        raise


def address_of(context: CallContext) -> str:
    """The caller's address, without its port."""
    return str(context.peer()).rpartition(":")[0]


def is_served(query: NamedModel) -> bool:
    """Whether the gateway serves the model and version that a query names."""
    try:
        check_version(query.name, query.version)
    except RefusedError:
        return False
    return True


async def call_triton(upstream: Upstream, method: str, request: bytes, context: CallContext) -> bytes:
    """One unary call to Triton; its answer.

    Raises:
        RefusedError: Triton refuses it, or cannot be reached.
    """
    try:
        answer = await upstream.channel.unary_unary(f"/{SERVICE}/{method}")(request, metadata=trace_of_call(context))
    except grpc.aio.AioRpcError as error:
        raise upstream.error_of(error) from error
    return bytes(answer)


def authorization_of(context: CallContext) -> str | None:
    """The `authorization` of a call's metadata."""
    for name, value in context.invocation_metadata() or ():
        if name == "authorization":
            return str(value)
    return None


def trace_of_call(context: CallContext) -> Metadata:
    """The trace that a call belongs to; see `trace_of`."""
    return trace_of(context.invocation_metadata() or ())
