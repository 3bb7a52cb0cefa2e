"""Both clients over real gRPC, against a service that answers Triton's protocol without Triton."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from id3pm_client import (
    AsyncClient,
    Client,
    ClosedClientError,
    ConnectionFailedError,
    DeadlineExceededError,
    InternalServerError,
    InvalidRequestError,
    NotServedError,
    OverloadedError,
    Retry,
)
from id3pm_client._calls import control_call
from id3pm_client._connection import Connection
from id3pm_client._grpc import AsyncGrpcTransport, GrpcTransport

VECTOR = np.array([0.5, 1.5], np.float32)


class Service(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers by seed: 1..9 an image, 10 nothing, 11 an error, 12 an error once 10 has come, 13 half an image.

    14 is 10 for super-resolution alone. 15 is an error with the metadata of a gateway.

    Remembers what it saw.
    """

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.hanging = threading.Event()
        self.ended = threading.Event()
        self.controls: set[tuple[str, str, str]] = set()

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        inputs = {
            t.name: (t.datatype, tuple(t.shape), raw)
            for t, raw in zip(request.inputs, request.raw_input_contents, strict=True)
        }
        if "control" in inputs:
            raw = inputs["control"][2]
            length = int.from_bytes(raw[:4], "little")
            self.controls.add((request.model_name, raw[4 : 4 + length].decode(), raw[8 + length :].decode()))
            return answer(request, status=b'{"active": 0}')
        self.requests.append((request, inputs))
        self.headers.append(dict(context.invocation_metadata()))
        seed = int(np.frombuffer(inputs["seed"][2], np.int64)[0])
        if seed == 10 or (seed == 14 and request.model_name == "super_resolution"):
            context.add_callback(self.ended.set)
            self.hanging.set()
            self.ended.wait(20)
        if seed == 12:
            self.hanging.wait(5)
        if seed in (11, 12):
            tag = request.parameters["x-id3pm-error-tag"].string_param
            said = f"""in ensemble 'id3pm', [request id: 1] {tag}{{"code": "invalid_argument"}} steps=0: too few"""
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, said)
        if seed == 15:
            context.set_trailing_metadata((("id3pm-code", "queue_full"), ("id3pm-retry-after-s", "2.5")))
            context.abort(grpc.StatusCode.UNAVAILABLE, "full: TAG, failed to connect; retry after 99 s")
        made = answer(
            request,
            image=np.full((1, 256, 256, 3), seed, np.uint8),
            image_64=np.full((1, 64, 64, 3), seed, np.uint8),
            receipt=json.dumps({"seed": seed}).encode(),
            receipt_64=json.dumps({"seed": seed}).encode(),
        )
        if seed == 13:
            made.raw_output_contents[0] = made.raw_output_contents[0][:1000]
        return made

    def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        return service_pb2.ModelReadyResponse(ready=request.name != "face_embedding")

    def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802
        return service_pb2.ServerReadyResponse(ready=True)

    def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        return service_pb2.ServerMetadataResponse(name="stand-in", version="7")


def answer(request: Any, **outputs: Any) -> Any:
    response = service_pb2.ModelInferResponse(model_name=request.model_name, id=request.id)
    for wanted in request.outputs:
        value = outputs[wanted.name]
        tensor = response.outputs.add(name=wanted.name)
        if isinstance(value, bytes):
            tensor.datatype, shape = "BYTES", (1, 1)
            raw = len(value).to_bytes(4, "little") + value
        else:
            tensor.datatype, shape = "UINT8", value.shape
            raw = value.tobytes()
        tensor.shape.extend(shape)
        response.raw_output_contents.append(raw)
    return response


@contextlib.contextmanager
def served(made: service_pb2_grpc.GRPCInferenceServiceServicer, release: threading.Event) -> Iterator[str]:
    """The address of a gRPC server with this service; `release` lets its calls go at the end."""
    server = grpc.server(futures.ThreadPoolExecutor(8))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(made, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    release.set()
    server.stop(2).wait(10)


@pytest.fixture
def service() -> Iterator[tuple[Service, str]]:
    made = Service()
    with served(made, made.ended) as url:
        yield made, url


def settled(service: Service, request_id: str) -> bool:
    wanted = {(stage, "cancel", request_id) for stage in ("denoiser_64", "super_resolution")}
    return service.ended.wait(5) and wanted <= service.controls


def test_client_and_async_client_get_the_same_images(service: tuple[Service, str]) -> None:
    made, url = service

    async def main() -> Any:
        async with AsyncClient(url) as client:
            return await client.generate(VECTOR, [1, 2, 3], steps=4, sampler="ddim")

    with Client(url) as client:
        images = client.generate(VECTOR, [1, 2, 3], steps=4, sampler="ddim")
    for first, second in zip(images, asyncio.run(main()), strict=True):
        assert first.seed == second.seed
        assert first.receipt == second.receipt == {"seed": first.seed}
        assert first.image.tobytes() == second.image.tobytes() == bytes([first.seed]) * (256 * 256 * 3)
        assert first.image_64.tobytes() == second.image_64.tobytes()
    for request, inputs in made.requests:
        assert request.model_name == "id3pm"
        assert inputs["embedding"] == ("FP32", (1, 2), VECTOR.tobytes())
        assert inputs["steps"] == ("INT32", (1, 1), np.int32(4).tobytes())
        assert inputs["sampler"] == ("BYTES", (1, 1), b"\x04\x00\x00\x00ddim")
        assert 0 < request.parameters["timeout"].int64_param <= 300e6


def test_headers_go_with_every_request(service: tuple[Service, str]) -> None:
    made, url = service
    with Client(url, headers={"triton-grpc-protocol-key": "secret"}) as client:
        client.generate(VECTOR, 1)
    assert made.headers[0]["triton-grpc-protocol-key"] == "secret"


def test_the_servers_message_comes_through_without_tritons_prefixes(service: tuple[Service, str]) -> None:
    with (
        Client(service[1]) as client,
        pytest.raises(InvalidRequestError, match=r"^image 1 \(seed 11\): steps=0: too few$"),
    ):
        client.generate(VECTOR, [1, 11])


def test_code_and_fields_of_an_error_come_through(service: tuple[Service, str]) -> None:
    async def main() -> None:
        async with AsyncClient(service[1], retry=Retry(limit=0)) as client:
            await client.generate(VECTOR, 15)

    with Client(service[1], retry=Retry(limit=0)) as client, pytest.raises(OverloadedError) as blocking:
        client.generate(VECTOR, 15)
    with pytest.raises(OverloadedError) as asynchronous:
        asyncio.run(main())
    for error in (blocking.value, asynchronous.value):
        assert (error.code, error.retry_after_s) == ("queue_full", 2.5)
        assert str(error) == "full: TAG, failed to connect; retry after 99 s"


def test_an_answer_that_cannot_be_read_is_an_error_and_no_endless_wait(service: tuple[Service, str]) -> None:
    url = service[1]

    async def main() -> None:
        async with AsyncClient(url) as client:
            await client.generate(VECTOR, 13)

    def blocking() -> None:
        with Client(url) as client:
            client.generate(VECTOR, 13)

    def call(run: Callable[[], None], caught: queue.SimpleQueue[BaseException]) -> None:
        try:
            run()
        except BaseException as error:
            caught.put(error)

    for run in (blocking, lambda: asyncio.run(main())):
        caught: queue.SimpleQueue[BaseException] = queue.SimpleQueue()
        threading.Thread(target=call, args=(run, caught), daemon=True).start()
        error = caught.get(timeout=20)
        assert isinstance(error, InternalServerError) and "cannot be read: ValueError" in str(error)


def test_a_deadline_ends_the_call_and_the_work(service: tuple[Service, str]) -> None:
    made, url = service
    with Client(url) as client, pytest.raises(DeadlineExceededError, match="no answer within 0.3 s") as caught:
        client.generate(VECTOR, 10, timeout_s=0.3)
    assert settled(made, caught.value.request_id or "")


def test_the_async_deadline_does_so_too(service: tuple[Service, str]) -> None:
    made, url = service

    async def main() -> str:
        async with AsyncClient(url) as client:
            with pytest.raises(DeadlineExceededError, match="no answer within 0.3 s") as caught:
                await client.generate(VECTOR, 10, timeout_s=0.3)
        return caught.value.request_id or ""

    assert settled(made, asyncio.run(main()))


def test_a_failure_cancels_its_neighbours_over_the_wire(service: tuple[Service, str]) -> None:
    made, url = service
    with Client(url) as client, pytest.raises(InvalidRequestError):
        client.generate(VECTOR, [10, 12])
    (hanging,) = (request.id for request, inputs in made.requests if inputs["seed"][2] == np.int64(10).tobytes())
    assert settled(made, hanging)


def test_a_cancelled_task_cancels_over_the_wire(service: tuple[Service, str]) -> None:
    made, url = service

    async def main() -> None:
        async with AsyncClient(url) as client:
            task = asyncio.create_task(client.generate(VECTOR, 10))
            while not made.requests:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    assert settled(made, made.requests[0][0].id)


CLOSED_UNDER: dict[str, tuple[int, Callable[[Any], Any]]] = {
    "one": (1, lambda client: client.generate(VECTOR, 10)),
    "several": (2, lambda client: client.generate(VECTOR, [10, 10])),
    "stream": (1, lambda client: client.stream(VECTOR, 10)),
}


@pytest.mark.parametrize(("requests", "use"), CLOSED_UNDER.values(), ids=CLOSED_UNDER)
def test_closing_ends_calls_and_work_over_the_wire(
    service: tuple[Service, str], requests: int, use: Callable[[Any], Any]
) -> None:
    made, url = service
    client = Client(url)

    def close() -> None:
        while len(made.requests) < requests:
            time.sleep(0.01)
        client.close()

    closer = threading.Thread(target=close)
    closer.start()
    with pytest.raises(ClosedClientError, match="this client was closed before the answer came") as caught:
        list(use(client))
    closer.join(10)
    assert settled(made, caught.value.request_id or "")


@pytest.mark.parametrize(("requests", "use"), CLOSED_UNDER.values(), ids=CLOSED_UNDER)
def test_closing_ends_asynchronous_calls_too_and_cancels_no_task(
    service: tuple[Service, str], requests: int, use: Callable[[Any], Any]
) -> None:
    made, url = service

    async def call(client: AsyncClient) -> Any:
        made_of = use(client)
        return await made_of if asyncio.iscoroutine(made_of) else [event async for event in made_of]

    async def main() -> str:
        client = AsyncClient(url)
        task = asyncio.create_task(call(client))
        while len(made.requests) < requests:
            await asyncio.sleep(0.01)
        await client.close()
        with pytest.raises(ClosedClientError, match="this client was closed before the answer came") as caught:
            await asyncio.wait_for(task, 10)
        return caught.value.request_id or ""

    assert settled(made, asyncio.run(main()))


def test_closing_ends_a_pause_between_attempts() -> None:
    patient = Retry(first_delay_s=60.0, max_delay_s=60.0)
    client = Client("127.0.0.1:9", retry=patient)
    closer = threading.Timer(0.5, client.close)
    closer.start()
    with pytest.raises(ClosedClientError):
        client.generate(VECTOR, 1)
    closer.join()

    async def main() -> None:
        client = AsyncClient("127.0.0.1:9", retry=patient)
        task = asyncio.create_task(client.generate(VECTOR, 1))
        await asyncio.sleep(0.5)
        await client.close()
        with pytest.raises(ClosedClientError):
            await asyncio.wait_for(task, 10)

    asyncio.run(main())


def test_a_closed_connection_says_so_to_all_that_is_asked(service: tuple[Service, str]) -> None:
    connection = Connection(service[1])
    call = control_call("denoiser_64", "ping", "")
    wire = GrpcTransport(connection)
    assert wire.is_ready(None, 5.0)
    wire.close()
    outcomes: list[Any] = []
    wire.submit(call, 5.0, outcomes.append)()
    assert [type(outcome) for outcome in outcomes] == [ClosedClientError]
    for ask in (
        lambda: wire.is_ready("id3pm", 5.0),
        lambda: wire.is_ready(None, 5.0),
        lambda: wire.server_metadata(5.0),
    ):
        with pytest.raises(ClosedClientError):
            ask()

    async def main(used: bool) -> None:
        wire = AsyncGrpcTransport(connection)
        if used:
            assert await wire.is_ready(None, 5.0)
        await wire.close()
        for asked in (wire.infer(call, 5.0), wire.is_ready("id3pm", 5.0), wire.server_metadata(5.0)):
            with pytest.raises(ClosedClientError):
                await asked

    asyncio.run(main(used=True))
    asyncio.run(main(used=False))


def test_ping_readiness_and_info(service: tuple[Service, str]) -> None:
    async def main() -> Any:
        async with AsyncClient(service[1]) as client:
            return await client.ping(), await client.is_ready(), await client.server_info()

    with Client(service[1]) as client:
        assert (client.ping(), client.is_ready(), client.server_info()) == asyncio.run(main())
        assert client.is_ready()
        assert client.ping()["denoiser_64"] == {"active": 0}
        info = client.server_info()
    assert (info.name, info.version, info.ready) == ("stand-in", "7", True)
    assert info.models["id3pm"]
    assert not info.models["face_embedding"]


def test_nobody_at_home_is_a_connection_failure() -> None:
    client = Client("127.0.0.1:9", retry=Retry(limit=2, first_delay_s=0.01))
    start = time.monotonic()
    with client, pytest.raises(ConnectionFailedError, match="failed to connect"):
        client.generate(VECTOR, 1)
    assert not Client("127.0.0.1:9").is_ready()
    assert time.monotonic() - start < 5.0


def test_a_server_that_comes_back_is_found_again() -> None:
    first = grpc.server(futures.ThreadPoolExecutor(1))
    port = first.add_insecure_port("127.0.0.1:0")
    first.start()
    second = grpc.server(futures.ThreadPoolExecutor(2))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Service(), second)

    def come_back() -> None:
        second.add_insecure_port(f"127.0.0.1:{port}")
        second.start()

    with Client(f"127.0.0.1:{port}", retry=Retry(limit=20, first_delay_s=0.1, max_delay_s=0.2)) as client:
        first.stop(0).wait()
        later = threading.Timer(0.3, come_back)
        later.start()
        try:
            assert client.generate(VECTOR, 1).seed == 1
        finally:
            later.join()
            second.stop(0).wait()


def test_what_is_no_triton_is_not_served() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with Client(f"127.0.0.1:{port}") as client, pytest.raises(NotServedError):
        client.generate(VECTOR, 1)
    server.stop(0).wait()
