"""Stand-ins for Triton's Python backend and for an engine."""

from __future__ import annotations

import json
import threading
import time
from typing import Any, ClassVar

import numpy as np

from id3pm.config import UNetConfig
from id3pm.engines.arrays import HOST
from id3pm.engines.inputs import EngineInputs

UNET = UNetConfig(
    image_size=64, num_channels=32, num_res_blocks=1, channel_mult=(1,), attention_resolutions=(), identity_dim=4
)


class StandInMetric:
    """A counter's or gauge's value, or how many values a histogram has got."""

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

        metrics: ClassVar[dict[str, StandInMetric]] = {}

        def __init__(self, name: str, description: str, kind: int) -> None:
            self.name = name.removeprefix("id3pm_")

        def Metric(self, labels: dict[str, str], buckets: Any = None) -> StandInMetric:  # noqa: N802
            rest = [value for name, value in labels.items() if name != "model"]
            return self.metrics.setdefault(" ".join([self.name, *rest]), StandInMetric())

    class Logger:
        lines: ClassVar[list[str]] = []

        @classmethod
        def log_info(cls, message: str) -> None:
            cls.lines.append(f"I {message}")

        @classmethod
        def log_warn(cls, message: str) -> None:
            cls.lines.append(f"W {message}")

        @classmethod
        def log_error(cls, message: str) -> None:
            cls.lines.append(f"E {message}")


class StandInRequest:
    def __init__(self, id: str = "", parameters: dict[str, Any] | None = None, **tensors: Any) -> None:
        self.id, self._parameters = id, parameters or {}
        self.tensors = [StandInTriton.Tensor(name, np.asarray(value)) for name, value in tensors.items()]
        self.responses: list[Any] = []
        self.answered = threading.Event()
        self.gone = False
        self.timeout_us = 0
        self.wanted = ["image_64", "receipt_64", "status"]

    def request_id(self) -> str:
        return self.id

    def parameters(self) -> str:
        return json.dumps(self._parameters)

    def timeout(self) -> int:
        return self.timeout_us

    def inputs(self) -> list[Any]:
        return self.tensors

    def requested_output_names(self) -> list[str]:
        return self.wanted

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

    config, max_batch, arrays, description = UNET, 8, HOST, "stand-in"

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.calls = self.rows = 0
        self.go = threading.Event()
        self.go.set()

    def run(self, inputs: EngineInputs) -> np.ndarray:
        self.calls += 1
        self.rows += len(inputs["x"])
        time.sleep(0.001)
        assert self.go.wait(10)
        if self.error is not None:
            raise self.error
        return np.zeros((len(inputs["x"]), 6, 64, 64), dtype=np.float32)

    def close(self) -> None:
        self.closed = True


def good(rows: int = 1, **more: Any) -> StandInRequest:
    return StandInRequest(embedding=np.ones((rows, 4), np.float32), seed=np.arange(rows).reshape(-1, 1), **more)


def control(*words: str) -> StandInRequest:
    """A control request."""
    return StandInRequest(control=np.array([words], dtype=object))


def state_of(request: StandInRequest) -> dict[str, Any]:
    """The answer to a control request."""
    return json.loads(request.response().outputs["status"][0, 0])
