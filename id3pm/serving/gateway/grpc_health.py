"""gRPC's health checking protocol, `grpc.health.v1.Health`.

https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

import asyncio
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from id3pm.serving.gateway.auth import MODELS
from id3pm.serving.launcher.health import Health

SERVICE = "grpc.health.v1.Health"
LIVE = "live"
"""Service name for a liveness probe: served as long as the process runs."""
UNKNOWN, SERVING, NOT_SERVING, SERVICE_UNKNOWN = range(4)
NAMES = f"services are empty (all), {LIVE}, {', '.join(MODELS)}"
_LOOK_S = 0.25


def _file() -> descriptor_pb2.FileDescriptorProto:
    """health.proto: built here, because its package is not worth a dependency."""
    file = descriptor_pb2.FileDescriptorProto(
        name="grpc/health/v1/health.proto", package="grpc.health.v1", syntax="proto3"
    )
    kinds = descriptor_pb2.FieldDescriptorProto
    request = file.message_type.add(name="HealthCheckRequest")
    request.field.add(name="service", number=1, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    response = file.message_type.add(name="HealthCheckResponse")
    status = response.enum_type.add(name="ServingStatus")
    for number, name in enumerate(("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")):
        status.value.add(name=name, number=number)
    kind = ".grpc.health.v1.HealthCheckResponse.ServingStatus"
    response.field.add(name="status", number=1, type=kinds.TYPE_ENUM, type_name=kind, label=kinds.LABEL_OPTIONAL)
    service = file.service.add(name="Health")
    types = {"input_type": ".grpc.health.v1.HealthCheckRequest", "output_type": ".grpc.health.v1.HealthCheckResponse"}
    service.method.add(name="Check", **types)
    service.method.add(name="Watch", server_streaming=True, **types)
    return file


FILE = _file()
_POOL = descriptor_pool.DescriptorPool()
_POOL.Add(FILE)
HealthCheckRequest: Any = message_factory.GetMessageClass(
    _POOL.FindMessageTypeByName("grpc.health.v1.HealthCheckRequest")
)
HealthCheckResponse: Any = message_factory.GetMessageClass(
    _POOL.FindMessageTypeByName("grpc.health.v1.HealthCheckResponse")
)


def status_of(service: str, health: Health) -> int:
    """The state of a service by its name.

    Args:
        service: Empty or Triton's service for the whole, the name of a model, or `LIVE`.
        health: Health of Triton.
    """
    if service == LIVE:
        return SERVING
    if service not in ("", "inference.GRPCInferenceService", *MODELS):
        return SERVICE_UNKNOWN
    return SERVING if health.ready else NOT_SERVING


def response(status: int) -> bytes:
    """A `HealthCheckResponse`."""
    return bytes(HealthCheckResponse(status=status).SerializeToString())


async def changed(service: str, health: Health, last: int) -> int:
    """The next state that is not `last`."""
    while (status := status_of(service, health)) == last:
        await asyncio.sleep(_LOOK_S)
    return status
