"""A stand-in for Triton over gRPC, with a gateway in front of it, and callers that misbehave."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator, Sequence
from concurrent import futures
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

METHOD = "/inference.GRPCInferenceService"
SECRETS = "see /var/lib/x/y.py"


class MadeUpRpc(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers by the request's id; remembers what it saw.

    `slow...` after 0.5 s, `dead...` as if a stub had died, `path...` with an error that has a path in it, `large...`
    with a megabyte, `for ever...` when `released`. Every stage knows every request that is to be cancelled.
    """

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.cancels: list[tuple[str, str]] = []
        self.released = futures.Future[None]()
        self._server = grpc.server(futures.ThreadPoolExecutor(32), options=[("grpc.max_receive_message_length", -1)])
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        response = service_pb2.ModelInferResponse(model_name=request.model_name, id=request.id)
        if any(tensor.name == "control" for tensor in request.inputs):
            self.cancels.append((request.model_name, request.inputs[0].contents.bytes_contents[-1].decode()))
            response.outputs.add(name="status")
            text = b'{"found": true}'
            response.raw_output_contents.append(len(text).to_bytes(4, "little") + text)
            return response
        self.seen.append(request.id)
        if request.id.startswith("slow"):
            time.sleep(0.5)
        if request.id.startswith("for ever"):
            futures.wait([self.released], timeout=20)
        if request.id.startswith("dead"):
            context.abort(
                grpc.StatusCode.INTERNAL, "in ensemble 'id3pm', Stub process 'denoiser_64_0_0' is not healthy."
            )
        if request.id.startswith("path"):
            context.abort(grpc.StatusCode.INTERNAL, SECRETS)
        if request.id.startswith("large"):
            response.raw_output_contents.append(bytes(2**20))
        return response

    def stop(self) -> None:
        """Ends it, and whatever waits in it."""
        if not self.released.done():
            self.released.set_result(None)
        self._server.stop(0).wait()


def message(id: str = "", model: str = "id3pm", size: int = 0) -> Any:
    """A request that the gateway lets pass, with a text of `size` bytes."""
    made = service_pb2.ModelInferRequest(model_name=model, id=id)
    made.inputs.add(name="preset", datatype="BYTES", shape=[1, 1])
    made.raw_input_contents.append(size.to_bytes(4, "little") + bytes(size))
    return made


class Caller:
    """A caller of the gateway's gRPC port, with a connection of its own."""

    def __init__(self, port: int, token: str | None = None) -> None:
        self._metadata = [] if token is None else [("authorization", f"Bearer {token}")]
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=options)

    def infer(self, request: Any, timeout_s: float = 20.0) -> Any:
        """`ModelInfer`."""
        call = service_pb2_grpc.GRPCInferenceServiceStub(self._channel).ModelInfer
        return call(request, metadata=self._metadata, timeout=timeout_s)

    def is_ready(self, model: str) -> bool:
        """`ModelReady`."""
        call = service_pb2_grpc.GRPCInferenceServiceStub(self._channel).ModelReady
        return bool(call(service_pb2.ModelReadyRequest(name=model), metadata=self._metadata, timeout=20).ready)

    def stream(self, requests: Iterator[Any]) -> Any:
        """`ModelStreamInfer`; an iterator of answers."""
        call = service_pb2_grpc.GRPCInferenceServiceStub(self._channel).ModelStreamInfer
        return call(requests, metadata=self._metadata, timeout=20)

    def send_nothing(self, method: str, timeout_s: float = 20.0) -> Any:
        """Begins a call and never sends its message."""
        return self._channel.stream_unary(f"{METHOD}/{method}")(
            iter(queue.SimpleQueue[bytes]().get, None), metadata=self._metadata, timeout=timeout_s
        )

    def begin_nothing(self, method: str) -> Any:
        """As `send_nothing`, without waiting."""
        return self._channel.stream_unary(f"{METHOD}/{method}").future(
            iter(queue.SimpleQueue[bytes]().get, None), metadata=self._metadata, timeout=20
        )

    def close(self) -> None:
        """Ends all its calls."""
        self._channel.close()


def status_of(call: Any) -> tuple[str, str]:
    """Status and message of what raises, or `OK`."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code().name, error.details()
    return "OK", ""


def by_id(responses: Sequence[Any]) -> dict[str, str]:
    """The error message of each answer of a stream, empty where there is none."""
    return {response.infer_response.id: response.error_message for response in responses}
