"""One real Triton server for all integration tests, with stand-in networks so small that an image takes no time."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import queue
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tritonclient.grpc
from made_once import made_once
from onnx import numpy_helper
from services import running
from tritonclient.utils import np_to_triton_dtype

import screenshots
from id3pm.attributes import AttributeSet
from id3pm.config import PAPER_BASE_DIFFUSION, PAPER_SR_DIFFUSION, DiffusionConfig, SamplingOptions, UNetConfig
from id3pm.engines.manifest import BundleReference, Stage
from id3pm.export.repository import write_repository
from id3pm.serving.gateway.options import GatewayOptions
from id3pm.serving.launcher.control import connection_to
from id3pm.serving.launcher.settings import ServerSettings
from id3pm.serving.launcher.triton_server import TritonServer
from id3pm.serving.service import Service
from id3pm_client import Client
from load.stand_ins import write_stand_in

ROOT = Path(__file__).parents[2]
MAX_BODY = 2**20  # of the service
BASE = UNetConfig(
    image_size=64,
    num_channels=32,
    num_res_blocks=1,
    channel_mult=(1,),
    attention_resolutions=(),
    identity_dim=128,
    attribute_dim=7,
)
SR = UNetConfig(
    image_size=256, num_channels=32, num_res_blocks=1, channel_mult=(1,), attention_resolutions=(), low_res_size=64
)
BASE_SAMPLING = SamplingOptions(steps=3)
SR_SAMPLING = SamplingOptions(steps=2, guidance_scale=1.0, dynamic_threshold=0.0)

# Names, shapes and dependence on every input are a U-Net's; what comes out is no face.
BASE_GRAPH = """<ir_version: 8, opset_import: ["": 17]>
base (float[N,3,64,64] x, float[N] timesteps, float[N,128] identity, float[N,7] attributes)
    => (float[N,6,64,64] model_output) {
    time = Unsqueeze(timesteps, last)
    time_bias = MatMul(time, w_time)
    identity_bias = MatMul(identity, w_identity)
    attribute_bias = MatMul(attributes, w_attributes)
    both_bias = Add(time_bias, identity_bias)
    bias = Add(both_bias, attribute_bias)
    plane = Unsqueeze(bias, planes)
    features = Conv<pads = [1, 1, 1, 1]>(x, w_in)
    biased = Add(features, plane)
    active = Tanh(biased)
    model_output = Conv<pads = [1, 1, 1, 1]>(active, w_out)
}"""
SR_GRAPH = """<ir_version: 8, opset_import: ["": 17]>
sr (float[N,3,256,256] x, float[N] timesteps, float[N,3,64,64] low_res) => (float[N,6,256,256] model_output) {
    time = Unsqueeze(timesteps, last)
    bias = MatMul(time, w_time)
    plane = Unsqueeze(bias, planes)
    upsampled = Resize<mode = "nearest">(low_res, , scales)
    both = Concat<axis = 1>(x, upsampled)
    features = Conv<pads = [1, 1, 1, 1]>(both, w_in)
    biased = Add(features, plane)
    active = Tanh(biased)
    model_output = Conv<pads = [1, 1, 1, 1]>(active, w_out)
}"""


def tiny_engine(
    folder: Path,
    stage: Stage,
    graph: str,
    unet: UNetConfig,
    diffusion: DiffusionConfig,
    sampling: SamplingOptions,
    attribute_set: AttributeSet = "landmarks",
) -> None:
    """A random network as an engine folder. Its manifest proves nothing: these tests are about serving."""
    random = np.random.Generator(np.random.Philox(0))
    channels = 8
    constants = {
        "last": np.array([1]),
        "planes": np.array([2, 3]),
        "scales": np.array([1, 1, 4, 4], dtype=np.float32),
        "w_time": random.standard_normal((1, channels)) * 1e-3,
        "w_identity": random.standard_normal((128, channels)),
        "w_attributes": random.standard_normal((unet.attribute_dim or 1, channels)),
        "w_in": random.standard_normal((channels, unet.in_channels, 3, 3)) * 0.2,
        "w_out": random.standard_normal((unet.out_channels, channels, 3, 3)) * 0.2,
    }
    model = onnx.parser.parse_model(graph)
    used = {name for node in model.graph.node for name in node.input}
    for name, value in constants.items():
        if name in used:
            array = value if value.dtype == np.int64 else value.astype(np.float32)
            model.graph.initializer.append(numpy_helper.from_array(array, name))
    onnx.checker.check_model(model, full_check=True)
    write_stand_in(
        folder,
        model,
        stage=stage,
        max_batch=8,
        bundle=BundleReference(name="tiny", weights_sha256="0" * 64, bundle_json_sha256="1" * 64),
        unet=unet,
        diffusion=diffusion,
        sampling=sampling,
        l2_normalised=False,  # tests may send any vector
        attribute_set=attribute_set,
    )


@pytest.fixture(scope="session")
def repository(face_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model repository of this checkout with stand-in networks and the real face models."""

    def make(folder: Path) -> None:
        write_repository(folder)
        tiny_engine(folder / "denoiser_64/1/engine", "base", BASE_GRAPH, BASE, PAPER_BASE_DIFFUSION, BASE_SAMPLING)
        tiny_engine(folder / "super_resolution/1/engine", "sr", SR_GRAPH, SR, PAPER_SR_DIFFUSION, SR_SAMPLING)
        shutil.copytree(face_folder, folder / "face_embedding/1/engine")

    return made_once(tmp_path_factory, "triton_repo", make)


@pytest.fixture(scope="session")
def set_3_repository(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the paper's largest attribute set: all of its fields are given, or none."""
    folder = tmp_path_factory.mktemp("set_3") / "triton_repo"
    shutil.copytree(repository, folder)
    engine = folder / "denoiser_64/1/engine"
    shutil.rmtree(engine)
    base = dataclasses.replace(BASE, attribute_dim=30)
    graph = BASE_GRAPH.replace("[N,7] attributes", "[N,30] attributes")
    tiny_engine(engine, "base", graph, base, PAPER_BASE_DIFFUSION, BASE_SAMPLING, attribute_set=3)
    return folder


@pytest.fixture(scope="session")
def server(repository: Path) -> Iterator[TritonServer]:
    """A running server on free ports; stopped, if need be by force, when the tests are over."""
    running = TritonServer(repository, ServerSettings.on_free_ports(threads=1, start_timeout_s=60, drain_timeout_s=5))
    try:
        with running:
            yield running
            assert running.poll() is None, f"it died with {running.poll()}:\n{running.log_tail(40)}"
    finally:
        running.kill()


@pytest.fixture
def client(server: Any) -> Iterator[Client]:
    """A client of `server`."""
    with Client(server.grpc_url, timeout_s=60) as made:
        yield made


@pytest.fixture(scope="session")
def embedding() -> np.ndarray:
    """An ID vector of length 1, as SFace gives them."""
    vector = np.random.Generator(np.random.Philox(5)).standard_normal(128)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


@pytest.fixture(scope="session")
def build() -> Callable[[Path], subprocess.CompletedProcess[str]]:
    """Builds the shipped bundle's engines into a repository, as the README says."""

    def run(repository: Path) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, str(ROOT / "export/build_engines.py"), "--repository", str(repository)]
        return subprocess.run(program, check=True, timeout=280, capture_output=True, text=True)

    return run


@pytest.fixture(scope="session")
def built(build: Callable[[Path], subprocess.CompletedProcess[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model repository of this checkout with the shipped bundle's engines; read-only for tests."""
    return made_once(tmp_path_factory, "demo", build)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium; tests that need it are skipped without one, or fail if ID3PM_REQUIRE_BROWSER is set."""
    with contextlib.ExitStack() as stack:
        try:
            running = stack.enter_context(screenshots.chromium(tmp_path_factory.mktemp("chromium")))
        except FileNotFoundError as missing:
            if os.environ.get("ID3PM_REQUIRE_BROWSER"):
                pytest.fail(str(missing))
            pytest.skip(str(missing))
        yield running


class Wire:
    """The two ways a client reaches the server, without id3pm's own client: raw tensors, and JSON over HTTP."""

    def __init__(self, server: TritonServer) -> None:
        self.server = server
        self.grpc = tritonclient.grpc.InferenceServerClient(server.grpc_url)

    def start(
        self,
        model: str,
        outputs: Sequence[str],
        parameters: dict[str, Any] | None = None,
        id: str = "",
        timeout_us: int | None = None,
        **inputs: Any,
    ) -> Callable[[], dict[str, np.ndarray]]:
        """Sends a request; calling what is returned waits for the answer."""
        done: queue.Queue[tuple[Any, Any]] = queue.Queue()
        self.grpc.async_infer(
            model,
            [self.tensor(name, value) for name, value in inputs.items()],
            callback=lambda result, error: done.put((result, error)),
            outputs=[tritonclient.grpc.InferRequestedOutput(name) for name in outputs],
            request_id=id,
            parameters=parameters,
            timeout=timeout_us,
            client_timeout=60,
        )

        def answer() -> dict[str, np.ndarray]:
            result, error = done.get(timeout=60)
            if error is not None:
                raise error
            return {name: result.as_numpy(name) for name in outputs}

        return answer

    @staticmethod
    def tensor(name: str, value: Any) -> tritonclient.grpc.InferInput:
        """An input tensor of the value's own type."""
        array = np.asarray(value)
        if array.dtype.kind in "SUO":
            array = array.astype(object)
        tensor = tritonclient.grpc.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        return tensor

    def infer(self, model: str, outputs: Sequence[str], **inputs: Any) -> dict[str, np.ndarray]:
        """Sends a request and waits for the answer."""
        return self.start(model, outputs, **inputs)()

    def control(self, model: str, op: str, request_id: str = "", *more: str) -> dict[str, Any]:
        """The JSON answer to a control request."""
        words = np.array([[op, request_id, *more]], dtype=object)
        status = self.infer(model, ["status"], control=words)["status"]
        return json.loads(status[0, 0])

    def http(self, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
        """Status and body of an HTTP exchange; a body makes it a POST, sent as JSON unless it is bytes."""
        connection = connection_to(self.server.http_url, 60)
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, data, headers or {})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, content

    def metrics(self) -> dict[str, float]:
        """This package's metrics, by name and labels."""
        with urllib.request.urlopen(f"http://{self.server.metrics_url}/metrics", timeout=10) as response:
            lines = response.read().decode().splitlines()
        return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("id3pm_")}


@pytest.fixture(scope="session")
def wire(server: TritonServer) -> Iterator[Wire]:
    connection = Wire(server)
    yield connection
    connection.grpc.close()


@pytest.fixture(scope="session")
def wire_to() -> Callable[[Any], Wire]:
    """Makes a `Wire` to another server: whatever has `http_url`, `grpc_url` and `metrics_url`."""
    return Wire


@pytest.fixture(scope="session")
def service(repository: Path) -> Iterator[Service]:
    """The whole service with small bodies; modules that need other settings have one of their own."""
    options = GatewayOptions(max_body=MAX_BODY)
    with running(repository, gateway=options) as service:
        yield service


@pytest.fixture(scope="module")
def public(service: Service, wire_to: Callable[[Any], Any]) -> Iterator[Any]:
    """Its public ports."""
    connection = wire_to(service)
    yield connection
    connection.grpc.close()


@pytest.fixture(scope="module")
def neighbour(embedding: np.ndarray) -> dict[str, np.ndarray]:
    """A request of hundreds of steps."""
    return {"embedding": embedding[None], "seed": np.array([[7]]), "steps": np.array([[500]], dtype=np.int32)}


@pytest.fixture(scope="module")
def alone(public: Any, neighbour: dict[str, np.ndarray]) -> np.ndarray:
    """Its image, while nothing else is asked for."""
    image: np.ndarray = public.infer("id3pm", ["image"], **neighbour)["image"]
    return image
