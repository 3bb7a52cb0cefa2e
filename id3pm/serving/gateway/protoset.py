"""The protocol of the gRPC port as a descriptor set, for tools such as grpcurl, because the server has no reflection.

`python -m id3pm.serving.gateway.protoset > id3pm.protoset` writes it.
"""

from __future__ import annotations

import sys

from google.protobuf import descriptor_pb2
from tritonclient.grpc import service_pb2

from id3pm.serving.gateway import grpc_health


def protoset() -> bytes:
    """A serialized `FileDescriptorSet`: Triton's service with what it imports, and gRPC's health checks."""
    found = descriptor_pb2.FileDescriptorSet()
    for file in (*service_pb2.DESCRIPTOR.dependencies, service_pb2.DESCRIPTOR):
        file.CopyToProto(found.file.add())
    found.file.append(grpc_health.FILE)
    return bytes(found.SerializeToString())


if __name__ == "__main__":
    sys.stdout.buffer.write(protoset())
