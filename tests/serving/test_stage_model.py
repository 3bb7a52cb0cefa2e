"""The stage model behind a stand-in for Triton's Python backend: every request is answered exactly once."""

from __future__ import annotations

import json
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from id3pm.config import DiffusionConfig, SamplingOptions, UNetConfig
from id3pm.engines.inputs import EngineInputs
from id3pm.errors import ConfigError, DeadlineError, EngineError, FaceError, OverloadedError
from id3pm.serving import model_args, stage
from id3pm.serving.stages import DenoiserModel
from id3pm.serving.triton import describe

UNET = UNetConfig(
    image_size=64, num_channels=32, num_res_blocks=1, channel_mult=(1,), attention_resolutions=(), identity_dim=4
)


class StandInMetric:
    def __init__(self) -> None:
        self.value = 0.0

    def increment(self, amount: float) -> None:
        self.value += amount

    def set(self, value: float) -> None:
        self.value = value

    def observe(self, value: float) -> None:
        self.value += 1


class StandInTriton:
    """What `triton_python_backend_utils` offers, as far as it is used."""

    TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1

    class TritonError(Exception):
        INVALID_ARG, UNAVAILABLE, CANCELLED, INTERNAL = "INVALID_ARG", "UNAVAILABLE", "CANCELLED", "INTERNAL"

        def __init__(self, message: str, code: str) -> None:
            super().__init__(message)
            self.code = code

    class Tensor:
        def __init__(self, name: str, array: np.ndarray) -> None:
            self.array, self._name = array, name

        def name(self) -> str:
            return self._name

        def as_numpy(self) -> np.ndarray:
            return self.array

    class InferenceResponse:
        def __init__(self, tensors: Any = (), error: Any = None) -> None:
            self.outputs = {tensor.name(): tensor.array for tensor in tensors}
            self.error = error

    class MetricFamily:
        COUNTER, GAUGE, HISTOGRAM = range(3)

        def __init__(self, name: str, description: str, kind: int) -> None:
            self.name = name

        def Metric(self, labels: dict[str, str], buckets: Any = None) -> StandInMetric:  # noqa: N802
            return StandInMetric()


class StandInRequest:
    def __init__(self, id: str = "", parameters: dict[str, Any] | None = None, **tensors: Any) -> None:
        self.id, self._parameters = id, parameters or {}
        self.tensors = [StandInTriton.Tensor(name, np.asarray(value)) for name, value in tensors.items()]
        self.responses: list[Any] = []
        self.answered = threading.Event()
        self.gone = False

    def request_id(self) -> str:
        return self.id

    def parameters(self) -> str:
        return json.dumps(self._parameters)

    def timeout(self) -> int:
        return 0

    def inputs(self) -> list[Any]:
        return self.tensors

    def requested_output_names(self) -> list[str]:
        return ["image_64", "receipt_64", "status"]

    def get_response_sender(self) -> Any:
        return self

    def is_cancelled(self) -> bool:
        return self.gone

    def send(self, response: Any, flags: int) -> None:
        self.responses.append(response)
        self.answered.set()

    def response(self) -> Any:
        assert self.answered.wait(10), "never answered"
        time.sleep(0.05)  # time for a second answer, which would be a bug
        (response,) = self.responses
        return response


class StandInEngine:
    """Counts, waits for permission, and fails when told to."""

    config, max_batch, description = UNET, 8, "stand-in"

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.go = threading.Event()
        self.go.set()

    def run(self, inputs: EngineInputs) -> np.ndarray:
        assert self.go.wait(10)
        if self.error is not None:
            raise self.error
        return np.zeros((len(inputs["x"]), 6, 64, 64), dtype=np.float32)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def engine() -> StandInEngine:
    return StandInEngine()


@pytest.fixture
def model(engine: StandInEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[DenoiserModel]:
    manifest = types.SimpleNamespace(
        stage="base",
        target="onnx-cpu",
        diffusion=DiffusionConfig(),
        sampling=SamplingOptions(steps=3),
        unet=UNET,
        file_sha256="a" * 64,
        bundle=types.SimpleNamespace(name="stand-in", weights_sha256="b" * 64),
    )
    monkeypatch.setattr(stage, "read_manifest", lambda folder: manifest)
    monkeypatch.setattr(stage, "load_engine", lambda folder, device, threads: engine)
    parameters = {"max_rows": {"string_value": "2"}, "max_waiting": {"string_value": "2"}}
    args = {
        "model_repository": str(tmp_path),
        "model_version": "1",
        "model_name": "denoiser_64",
        "model_instance_kind": "CPU",
        "model_instance_device_id": "0",
        "model_config": json.dumps({"parameters": parameters}),
    }
    running = DenoiserModel(StandInTriton(), args)
    yield running
    engine.go.set()
    running.close()
    assert engine.closed


def good(rows: int = 1, **more: Any) -> StandInRequest:
    return StandInRequest(embedding=np.ones((rows, 4), np.float32), seed=np.arange(rows).reshape(-1, 1), **more)


def test_a_request_gets_images_and_receipts(model: DenoiserModel) -> None:
    request = good(rows=3)
    model.accept(request)
    outputs = request.response().outputs
    assert outputs["image_64"].shape == (3, 64, 64, 3)
    assert [json.loads(text)["seed"] for text in outputs["receipt_64"][:, 0]] == [0, 1, 2]


def test_an_engine_that_fails_fails_its_requests_and_nothing_else(model: DenoiserModel, engine: StandInEngine) -> None:
    engine.error = RuntimeError("/secret/path is broken")
    failed = good(rows=2)
    model.accept(failed)
    error = failed.response().error
    assert error.code == "INTERNAL" and "RuntimeError" in str(error) and "/secret" not in str(error)
    engine.error = None
    request = good()
    model.accept(request)
    assert request.response().error is None


def test_a_batch_that_does_not_fit_the_queue_is_refused_as_a_whole(model: DenoiserModel, engine: StandInEngine) -> None:
    engine.go.clear()
    busy = good(rows=3, id="busy")
    model.accept(busy)
    refused = good(rows=2, id="refused")
    model.accept(refused)
    assert refused.response().error.code == "UNAVAILABLE"
    engine.go.set()
    assert busy.response().error is None


def test_a_second_request_of_the_same_id_is_refused(model: DenoiserModel, engine: StandInEngine) -> None:
    engine.go.clear()
    first, second = good(id="same"), good(id="same")
    model.accept(first)
    model.accept(second)
    assert second.response().error.code == "INVALID_ARG"
    engine.go.set()
    assert first.response().error is None


def test_a_caller_who_has_gone_frees_the_rows(model: DenoiserModel, engine: StandInEngine) -> None:
    engine.go.clear()
    request = good(rows=2)
    model.accept(request)
    request.gone = True
    assert request.response().error.code == "CANCELLED"
    status = StandInRequest(control=np.array([["ping", ""]], dtype=object))
    model.accept(status)
    state = json.loads(status.response().outputs["status"][0, 0])
    assert (state["active"], state["waiting"]) == (0, 0)


def test_draining_refuses_new_work_and_finishes_the_old(model: DenoiserModel, engine: StandInEngine) -> None:
    engine.go.clear()
    old = good()
    model.accept(old)
    drain = StandInRequest(control=np.array([["drain", ""]], dtype=object))
    model.accept(drain)
    assert json.loads(drain.response().outputs["status"][0, 0])["draining"]
    new = good()
    model.accept(new)
    assert new.response().error.code == "UNAVAILABLE"
    engine.go.set()
    assert old.response().error is None


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FaceError("no face"), "INVALID_ARG"),
        (OverloadedError("full"), "UNAVAILABLE"),
        (DeadlineError("late"), "UNAVAILABLE"),
        (EngineError("broken"), "INTERNAL"),
    ],
)
def test_errors_keep_their_message_and_get_tritons_code(error: Exception, code: str) -> None:
    assert describe(error) == (code, str(error))


def test_the_text_of_an_unforeseen_error_stays_in_the_log() -> None:
    code, message = describe(FileNotFoundError("/secret/path"))
    assert code == "INTERNAL" and "FileNotFoundError" in message and "/secret" not in message


@pytest.mark.parametrize("value", ["0", "-1", "two", ""])
def test_a_bad_number_of_threads_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ID3PM_THREADS", value)
    with pytest.raises(ConfigError, match="ID3PM_THREADS"):
        model_args.threads()


@pytest.mark.parametrize(
    ("kind", "device_id", "target", "device"),
    [("GPU", "1", "tensorrt", "cuda:1"), ("GPU", "1", "onnx-cpu", "cpu"), ("GPU", "1", "openvino-cpu", "cpu")]
    + [("CPU", "0", "onnx-cuda", "cuda:0")],
)
def test_an_engine_runs_where_it_was_built_for(kind: str, device_id: str, target: str, device: str) -> None:
    args = {"model_instance_kind": kind, "model_instance_device_id": device_id}
    assert model_args.device_of(args, target) == device
