"""Two callers with tokens: nothing that one does under an id can be seen, joined, blocked or ended by the other."""

from __future__ import annotations

import concurrent.futures
import json
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
from services import access_of, running
from tritonclient.utils import InferenceServerException
from waiting import wait_until

from id3pm.serving.gateway.options import GatewayOptions
from id3pm.serving.launcher.control import connection_to, control
from id3pm.serving.service import Service

pytestmark = pytest.mark.server
ALICE, BOB = "alice-has-this-token", "bob-has-another-token"
TOKENS = "\n".join(
    f'[[caller]]\nname = "{name}"\ntoken = "{token}"\nmay_send = ["photo", "vector"]'
    for name, token in (("alice", ALICE), ("bob", BOB))
)
LONG = 1000  # steps: seconds
WAIT_S = 30.0
Json = dict[str, Any]


@pytest.fixture(scope="module")
def service(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    options = GatewayOptions(access=access_of(tmp_path_factory.mktemp("tokens"), TOKENS))
    with running(repository, gateway=options) as service:
        yield service


class Tenant:
    """One caller, on every way in."""

    def __init__(self, service: Service, token: str, embedding: np.ndarray) -> None:
        self._service = service
        self._headers = {"authorization": f"Bearer {token}"}
        self._embedding = embedding
        self.grpc = tritonclient.grpc.InferenceServerClient(service.grpc_url)
        self.pool = concurrent.futures.ThreadPoolExecutor(8)

    def close(self) -> None:
        self.grpc.close()
        self.pool.shutdown(wait=False, cancel_futures=True)

    def post(self, path: str, body: Json) -> tuple[int, Any]:
        connection = connection_to(self._service.http_url, WAIT_S)
        try:
            connection.request("POST", path, json.dumps(body), self._headers)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        return response.status, content.decode() if path.endswith("stream") else json.loads(content)

    # The ways in. Each makes an image under an id, and raises `NotAnsweredError` where that is refused.

    def infer(self, id: str, seed: int, steps: int) -> bytes:
        inputs = [
            {"name": "embedding", "shape": [1, 128], "datatype": "FP32", "data": self._embedding.tolist()},
            {"name": "seed", "shape": [1, 1], "datatype": "INT64", "data": [seed]},
            {"name": "steps", "shape": [1, 1], "datatype": "INT32", "data": [steps]},
        ]
        outputs = [{"name": "receipt", "parameters": {"binary_data": False}}]
        outputs += [{"name": "png", "parameters": {"binary_data": False}}]
        body = {"id": id, "inputs": inputs, "outputs": outputs}
        answer = self._checked(self.post("/v2/models/id3pm_png/infer", body))
        assert answer["id"] == id
        return png_of({output["name"]: output["data"][0] for output in answer["outputs"]}["png"])

    def generate(self, id: str, seed: int, steps: int) -> bytes:
        body = {"id": id, "embedding": self._embedding.tolist(), "seed": seed, "steps": steps}
        answer = self._checked(self.post("/v2/models/id3pm_png/generate", body))
        return png_of(answer["png"])

    def generate_stream(self, id: str, seed: int, steps: int) -> bytes:
        body = {"id": id, "embedding": self._embedding.tolist(), "seed": seed, "steps": steps}
        text = self._checked(self.post("/v2/models/id3pm/generate_stream", body))
        name, data = text.strip().split("\n\n")[-1].split("\n")
        event = json.loads(data.removeprefix("data: "))
        if name != "event: image":
            raise NotAnsweredError(str(event))
        return png_of(event["png"])

    def unary(self, id: str, seed: int, steps: int) -> bytes:
        result = self._grpc_infer(id, *self._tensors(seed, steps))
        assert result.get_response().id == id
        return png_of(result.as_numpy("png")[0, 0].decode())

    def stream(self, id: str, seed: int, steps: int) -> bytes:
        answers: queue.Queue[Any] = queue.Queue()
        client = tritonclient.grpc.InferenceServerClient(self._service.grpc_url)
        client.start_stream(lambda result, error: answers.put((result, error)), headers=self._headers)
        try:
            client.async_stream_infer("id3pm_png", self._tensors(seed, steps)[0], request_id=id)
            result, error = answers.get(timeout=WAIT_S)
        finally:
            client.stop_stream(cancel_requests=True)
            client.close()
        if error is not None:
            raise NotAnsweredError(str(error))
        assert result.get_response().id == id
        return png_of(result.as_numpy("png")[0, 0].decode())

    # The ways to ask about an id.

    def ask_infer(self, model: str, *words: str) -> Json:
        tensor = {"name": "control", "shape": [1, len(words)], "datatype": "BYTES", "data": list(words)}
        body = {"inputs": [tensor], "outputs": [{"name": "status", "parameters": {"binary_data": False}}]}
        answer = self._checked(self.post(f"/v2/models/{model}/infer", body))
        state: Json = json.loads(answer["outputs"][0]["data"][0])
        return state

    def ask_generate(self, model: str, *words: str) -> Json:
        answer = self._checked(self.post(f"/v2/models/{model}/generate", {"control": list(words)}))
        state: Json = json.loads(answer["status"])
        return state

    def ask_unary(self, model: str, *words: str) -> Json:
        result = self.grpc.infer(model, [words_tensor(words)], headers=self._headers, client_timeout=WAIT_S)
        state: Json = json.loads(result.as_numpy("status")[0, 0])
        return state

    def ask_stream(self, model: str, *words: str) -> Json:
        answers: queue.Queue[Any] = queue.Queue()
        client = tritonclient.grpc.InferenceServerClient(self._service.grpc_url)
        client.start_stream(lambda result, error: answers.put((result, error)), headers=self._headers)
        try:
            client.async_stream_infer(model, [words_tensor(words)])
            result, error = answers.get(timeout=WAIT_S)
        finally:
            client.stop_stream()
            client.close()
        assert error is None, error
        state: Json = json.loads(result.as_numpy("status")[0, 0])
        return state

    def start(self, way: str, id: str, seed: int, steps: int = LONG) -> concurrent.futures.Future[bytes]:
        """Begins an image, and returns when the 64 px stage has it."""
        image = self.pool.submit(getattr(self, way), id, seed, steps)
        wait_until(lambda: image.done() or self.ask_unary("denoiser_64", "progress", id)["found"], WAIT_S)
        assert not image.done(), image.exception()
        return image

    def _tensors(self, seed: int, steps: int) -> tuple[list[Any]]:
        arrays = {"embedding": self._embedding[None], "seed": np.array([[seed]]), "steps": np.array([[steps]], "i4")}
        tensors = []
        for name, array in arrays.items():
            kind = {"float32": "FP32", "int64": "INT64", "int32": "INT32"}[array.dtype.name]
            tensors.append(tritonclient.grpc.InferInput(name, list(array.shape), kind).set_data_from_numpy(array))
        return (tensors,)

    def _grpc_infer(self, id: str, tensors: list[Any]) -> Any:
        try:
            return self.grpc.infer("id3pm_png", tensors, request_id=id, headers=self._headers, client_timeout=WAIT_S)
        except InferenceServerException as error:
            raise NotAnsweredError(str(error)) from error

    def _checked(self, answer: tuple[int, Any]) -> Any:
        if answer[0] != 200:
            raise NotAnsweredError(str(answer))
        return answer[1]


class NotAnsweredError(Exception):
    """The service answered with an error."""


WORK = ("infer", "generate", "generate_stream", "unary", "stream")
ASK = ("ask_infer", "ask_generate", "ask_unary", "ask_stream")


def png_of(text: str) -> bytes:
    return text.encode()


def words_tensor(words: tuple[str, ...]) -> Any:
    array = np.array([words], dtype=object)
    return tritonclient.grpc.InferInput("control", list(array.shape), "BYTES").set_data_from_numpy(array)


def metric(service: Service, name: str) -> float:
    with concurrent.futures.ThreadPoolExecutor(1):
        connection = connection_to(service.metrics_url, WAIT_S)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


@pytest.fixture(scope="module")
def alice(service: Service, embedding: np.ndarray) -> Iterator[Tenant]:
    tenant = Tenant(service, ALICE, embedding)
    yield tenant
    tenant.close()


@pytest.fixture
def busy(alice: Tenant) -> Iterator[None]:
    """Work of Alice's that goes first, so that what she begins then outlasts all questions; Bob has his share."""
    rows = 8
    arrays = {
        "embedding": np.repeat(alice._embedding[None], rows, axis=0),
        "seed": np.arange(rows).reshape(-1, 1),
        "steps": np.full((rows, 1), LONG, np.int32),
        "priority": np.zeros((rows, 1), np.int32),
    }
    kinds = {"float32": "FP32", "int64": "INT64", "int32": "INT32"}
    tensors = [
        tritonclient.grpc.InferInput(name, list(array.shape), kinds[array.dtype.name]).set_data_from_numpy(array)
        for name, array in arrays.items()
    ]
    ended: queue.Queue[Any] = queue.Queue()
    alice.grpc.async_infer(
        "denoiser_64",
        tensors,
        lambda result, error: ended.put((result, error)),
        request_id="busy",
        headers=alice._headers,
    )
    wait_until(lambda: alice.ask_unary("denoiser_64", "progress", "busy")["found"], WAIT_S)
    yield
    alice.ask_unary("denoiser_64", "cancel", "busy")
    ended.get(timeout=WAIT_S)


@pytest.fixture(scope="module")
def bob(service: Service, embedding: np.ndarray) -> Iterator[Tenant]:
    tenant = Tenant(service, BOB, embedding)
    yield tenant
    tenant.close()


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("way", WORK)
def test_nobody_sees_watches_or_cancels_the_work_of_another(alice: Tenant, bob: Tenant, way: str) -> None:
    image = alice.start(way, f"secret-{way}", seed=1)
    for ask in ASK:
        question = getattr(bob, ask)
        for words in (("progress",), ("watch",), ("cancel",)):
            more = ("-1", "1") if words == ("watch",) else ()
            answer = question("denoiser_64", *words, f"secret-{way}", *more)
            assert answer == {"id": f"secret-{way}", "found": False}, ask
    assert alice.ask_generate("denoiser_64", "watch", f"secret-{way}", "-1", "1")["rows"][0]["steps"] == LONG
    assert not image.done(), "it was still at work when all were asked"
    assert alice.ask_unary("denoiser_64", "cancel", f"secret-{way}")["found"]
    with pytest.raises(NotAnsweredError, match="cancelled"):
        image.result(WAIT_S)


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("way", WORK)
def test_the_same_id_of_two_callers_names_two_pieces_of_work(alice: Tenant, bob: Tenant, way: str) -> None:
    mine = alice.start(way, f"order-{way}", seed=1)
    image = getattr(bob, way)(f"order-{way}", seed=2, steps=3)  # other inputs: refused, were it the same id
    assert image == bob.generate("", seed=2, steps=3)
    assert not mine.done() and alice.ask_infer("denoiser_64", "cancel", f"order-{way}")["found"]
    with pytest.raises(NotAnsweredError):
        mine.result(WAIT_S)


@pytest.mark.parametrize("way", WORK)
def test_answers_are_joined_and_repeated_for_their_owner_alone(
    service: Service, alice: Tenant, bob: Tenant, way: str
) -> None:
    def joined() -> float:
        return metric(service, "id3pm_joined_total")

    before = joined()
    first = getattr(alice, way)(f"twice-{way}", seed=3, steps=4)
    assert getattr(bob, way)(f"twice-{way}", seed=3, steps=4) == first
    assert joined() == before, "made anew"
    assert getattr(alice, way)(f"twice-{way}", seed=3, steps=4) == first
    assert joined() > before


@pytest.mark.usefixtures("busy")
def test_who_leaves_ends_no_work_of_another(alice: Tenant, bob: Tenant, service: Service) -> None:
    mine = alice.start("unary", "shared", seed=4)
    gone = tritonclient.grpc.InferenceServerClient(service.grpc_url)
    tensors = bob._tensors(4, LONG)[0]
    call = gone.async_infer("id3pm_png", tensors, lambda result, error: None, request_id="shared", headers=bob._headers)
    wait_until(lambda: bob.ask_unary("denoiser_64", "progress", "shared")["found"], WAIT_S)
    call.cancel()
    wait_until(lambda: not bob.ask_unary("denoiser_64", "progress", "shared")["found"], WAIT_S)
    gone.close()
    assert not mine.done() and alice.ask_unary("denoiser_64", "progress", "shared")["found"]
    assert alice.ask_unary("denoiser_64", "cancel", "shared")["found"]
    with pytest.raises(NotAnsweredError):
        mine.result(WAIT_S)


def test_the_supervisor_sees_and_ends_the_work_of_all(alice: Tenant, bob: Tenant, service: Service) -> None:
    images = [tenant.start("generate", "both", seed=5) for tenant in (alice, bob)]
    private = service.server.http_url
    assert control(private, "denoiser_64", "progress", "both")["found"]
    assert control(private, "denoiser_64", "cancel", "both")["found"]
    for image in images:
        with pytest.raises(NotAnsweredError, match="cancelled"):
            image.result(WAIT_S)


@pytest.mark.parametrize("name", ["x-id3pm-owner", "x-id3pm-caller"])
def test_nobody_says_whose_a_request_is(bob: Tenant, name: str) -> None:
    vector = bob._embedding.tolist()
    question = {"name": "control", "shape": [1, 2], "datatype": "BYTES", "data": ["progress", "a"]}
    bodies = [
        ("/v2/models/id3pm_png/generate", {"embedding": vector, "seed": 1, name: "alice"}),
        ("/v2/models/id3pm_png/generate", {"embedding": vector, "seed": 1, "parameters": {name: "alice"}}),
        ("/v2/models/id3pm/generate_stream", {"embedding": vector, "seed": 1, name: "alice"}),
        ("/v2/models/denoiser_64/generate", {"control": ["progress", "a"], name: "alice"}),
        ("/v2/models/denoiser_64/infer", {"inputs": [question], "parameters": {name: "alice"}}),
    ]
    for path, body in bodies:
        status, answer = bob.post(path, body)
        assert status == 400 and name in str(answer), path
    with pytest.raises(InferenceServerException, match=name):
        bob.grpc.infer(
            "denoiser_64", [words_tensor(("progress", "a"))], headers=bob._headers, parameters={name: "alice"}
        )
    # As headers they are not passed on.
    headers = {**bob._headers, name: "alice"}
    result = bob.grpc.infer("denoiser_64", [words_tensor(("progress", "a"))], headers=headers)
    assert not json.loads(result.as_numpy("status")[0, 0])["found"]
