"""The descriptor set of the gRPC port."""

from __future__ import annotations

import subprocess
import sys

from google.protobuf import descriptor_pb2, descriptor_pool


def test_the_descriptor_set_is_complete_and_names_the_methods() -> None:
    command = [sys.executable, "-m", "id3pm.serving.gateway.protoset"]
    written = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(written).file:
        pool.Add(file)  # raises where one is missing that it imports
    assert "ModelInfer" in pool.FindServiceByName("inference.GRPCInferenceService").methods_by_name
    assert set(pool.FindServiceByName("grpc.health.v1.Health").methods_by_name) == {"Check", "Watch"}
