"""A stand-in for Triton over HTTP and gRPC that records its requests, with a gateway in front of it."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import time
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from id3pm.serving.gateway.gateway import Gateway
from id3pm.serving.launcher.health import Health
from id3pm.serving.protocol import error_envelope
from id3pm.serving.protocol.error_envelope import StageError


class MadeUpTriton(ThreadingHTTPServer):
    """Answers what comes over HTTP with its `answer`, and inference over gRPC with its `reply`: outputs, a status
    and a text, or what a stage says. Remembers path, headers and body; of inference model, metadata and message.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        self.answer: tuple[int, dict[str, str], bytes] = (200, {"Content-Type": "application/json"}, b'{"a": 1}')
        self.reply: dict[str, tuple[str, list[int], bytes]] | tuple[grpc.StatusCode, str] | StageError = {}
        self.break_off = False
        self.delay_s = 0.0
        self.address = f"127.0.0.1:{self.server_address[1]}"
        self._rpc = grpc.server(futures.ThreadPoolExecutor(32), options=[("grpc.max_receive_message_length", -1)])
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(_Inference(self), self._rpc)
        self.rpc_address = f"127.0.0.1:{self._rpc.add_insecure_port('127.0.0.1:0')}"
        self._rpc.start()

    @property
    def messages(self) -> list[Any]:
        """What came over gRPC."""
        return [sent for _, _, sent in self.seen if not isinstance(sent, bytes)]

    def server_close(self) -> None:
        """Ends both."""
        super().server_close()
        self._rpc.stop(0).wait()


class _Inference(service_pb2_grpc.GRPCInferenceServiceServicer):
    def __init__(self, triton: MadeUpTriton) -> None:
        self._triton = triton

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802 - the library's name
        metadata = {name: value for name, value in context.invocation_metadata()}
        self._triton.seen.append((request.model_name, metadata, request))
        time.sleep(self._triton.delay_s)
        if self._triton.break_off:
            context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        if isinstance(self._triton.reply, StageError):
            tag = request.parameters[error_envelope.ERROR_TAG].string_param
            said = f"in ensemble 'id3pm', {error_envelope.write(tag, self._triton.reply)}"
            context.abort(grpc.StatusCode.UNAVAILABLE, said)
        if isinstance(self._triton.reply, tuple):
            context.abort(*self._triton.reply)
        response = service_pb2.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
        for name, (datatype, shape, raw) in self._triton.reply.items():
            response.outputs.add(name=name, datatype=datatype, shape=shape)
            response.raw_output_contents.append(raw)
        return response


class _Handler(BaseHTTPRequestHandler):
    server: MadeUpTriton

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.path, dict(self.headers), body))
        time.sleep(self.server.delay_s)
        if self.server.break_off:
            return
        status, headers, content = self.server.answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):
            self.wfile.write(content)

    do_POST = do_GET  # noqa: N815 - the library's name

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@dataclasses.dataclass
class Front:
    """A gateway and what is around it."""

    triton: MadeUpTriton
    health: Health
    gateway: Gateway
    ports: dict[str, int]

    def http(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, port: str = "http-port"
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.ports[port], timeout=20)
        data = json.dumps(body) if isinstance(body, dict) else body
        chunked = not isinstance(data, (str, bytes, type(None)))
        connection.request(method, path, data, headers or {}, encode_chunked=chunked)
        response = connection.getresponse()
        answer = response.status, dict(response.headers), response.read()
        connection.close()
        return answer
