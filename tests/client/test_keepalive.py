"""A connection that dies without notice ends a call long before its deadline."""

from __future__ import annotations

import concurrent.futures
import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import grpc
import numpy as np
import pytest
import tritonclient.grpc.service_pb2_grpc as services

from id3pm_client import _grpc
from id3pm_client._connection import Connection
from id3pm_client._errors import ConnectionFailedError
from id3pm_client._request import Call


class Slow(services.GRPCInferenceServiceServicer):
    def __init__(self) -> None:
        self.asked, self.end = threading.Event(), threading.Event()

    def ModelInfer(self, request: object, context: grpc.ServicerContext) -> object:  # noqa: N802
        self.asked.set()
        self.end.wait(20.0)
        context.abort(grpc.StatusCode.INTERNAL, "the test is over")


class Cable:
    """Passes bytes on between a client and a port, until it is cut: then it swallows them."""

    def __init__(self, port: int) -> None:
        self._port, self._cut = port, threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._cut.set()

    def close(self) -> None:
        for one in self._sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                self._sockets += [near, far]
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not self._cut.is_set():
                    sink.sendall(data)


@pytest.fixture
def slow() -> Iterator[tuple[Slow, Cable]]:
    service = Slow()
    server = grpc.server(
        concurrent.futures.ThreadPoolExecutor(4), options=[("grpc.http2.min_ping_interval_without_data_ms", 10)]
    )
    services.add_GRPCInferenceServiceServicer_to_server(service, server)
    cable = Cable(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    yield service, cable
    service.end.set()
    cable.close()
    server.stop(None).wait(5.0)


def test_a_silent_cut_is_noticed(slow: tuple[Slow, Cable], monkeypatch: pytest.MonkeyPatch) -> None:
    hurried = {"grpc.keepalive_time_ms": 200, "grpc.keepalive_timeout_ms": 200, "grpc.http2.ping_timeout_ms": 200}
    assert set(hurried) < {name for name, _ in _grpc._CHANNEL_ARGS}
    monkeypatch.setattr(_grpc, "_CHANNEL_ARGS", [(name, hurried.get(name, v)) for name, v in _grpc._CHANNEL_ARGS])
    service, cable = slow
    transport = _grpc.GrpcTransport(Connection(cable.url))
    answers: concurrent.futures.Future[object] = concurrent.futures.Future()
    call = Call("face_embedding", {"photo": np.array([[b"x"]], dtype=object)}, ("embedding",), "1")
    transport.submit(call, 15.0, answers.set_result)
    assert service.asked.wait(5.0)
    time.sleep(1.0)  # five questions later the call is still in flight: the server answers them
    assert not answers.done()
    cable.cut()
    assert isinstance(answers.result(5.0), ConnectionFailedError)
    transport.close()
