"""A gateway on real ports in front of a stand-in for Triton."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from made_up_triton import Front, MadeUpTriton

from id3pm.serving.gateway.gateway import Gateway
from id3pm.serving.gateway.options import GatewayOptions
from id3pm.serving.launcher.endpoints import check_ports
from id3pm.serving.launcher.health import Addresses, Health


@pytest.fixture
def triton() -> Iterator[MadeUpTriton]:
    with MadeUpTriton() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(timeout=5)


@pytest.fixture
def open_front(triton: MadeUpTriton) -> Iterator[Callable[[GatewayOptions], Front]]:
    """Starts a gateway with options; its Triton is ready."""
    opened = []

    def start(options: GatewayOptions) -> Front:
        health = Health()
        health.serves(Addresses(triton.address, triton.rpc_address, triton.address))
        ports = check_ports("127.0.0.1", {"http-port": 0, "grpc-port": 0, "metrics-port": 0})
        gateway = Gateway("127.0.0.1", ports, health, options)
        gateway.start()
        opened.append(gateway)
        return Front(triton, health, gateway, ports)

    yield start
    for gateway in opened:
        gateway.stop()


@pytest.fixture
def front(open_front: Callable[[GatewayOptions], Front]) -> Front:
    return open_front(GatewayOptions(max_body=10_000))
