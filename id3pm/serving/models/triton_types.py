"""Types of Triton's Python backend: the parts of `triton_python_backend_utils` that the models use.

The module exists only inside a Triton stub, so it is handed to the models as a `Backend`. Its documentation:
https://github.com/triton-inference-server/python_backend
"""
# ruff: noqa: D102, N802 - methods and names are Triton's

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from id3pm.serving.protocol.wire import Array


class BackendTensor(Protocol):
    """`pb_utils.Tensor`; strings are objects."""

    def name(self) -> str: ...
    def as_numpy(self) -> Array: ...


class ResponseSender(Protocol):
    """Answers one request with an `InferenceResponse`, from any thread."""

    def is_cancelled(self) -> bool: ...
    def send(self, response: object, flags: int) -> None: ...


class BackendRequest(Protocol):
    """`pb_utils.InferenceRequest`; its memory is gone when `execute` returns.

    The parameters are a JSON object of scalars, or nothing; the timeout is in microseconds, 0 for none.
    """

    def request_id(self) -> str: ...
    def parameters(self) -> str: ...
    def timeout(self) -> int: ...
    def inputs(self) -> Sequence[BackendTensor]: ...
    def requested_output_names(self) -> Sequence[str]: ...
    def get_response_sender(self) -> ResponseSender: ...


class BackendMetric(Protocol):
    """`pb_utils.Metric`: a counter (`increment`), a gauge (`set`) or a histogram (`observe`)."""

    def increment(self, value: float) -> None: ...
    def set(self, value: float) -> None: ...
    def observe(self, value: float) -> None: ...


class BackendMetricFamily(Protocol):
    """`pb_utils.MetricFamily`: metrics of one name."""

    def Metric(self, labels: Mapping[str, str], buckets: Sequence[float] | None = None) -> BackendMetric: ...


class BackendLogger(Protocol):
    """`pb_utils.Logger`."""

    def log_info(self, message: str) -> None: ...
    def log_warn(self, message: str) -> None: ...
    def log_error(self, message: str) -> None: ...


class Backend(Protocol):
    """`triton_python_backend_utils`. `TritonError` and `MetricFamily` also hold Triton's constants."""

    TRITONSERVER_RESPONSE_COMPLETE_FINAL: int
    Logger: BackendLogger
    Tensor: Callable[[str, Array], BackendTensor]
    TritonError: Callable[[str, object], object]
    InferenceResponse: Callable[..., object]
    MetricFamily: Callable[..., BackendMetricFamily]
    deserialize_bytes_tensor: Callable[[Array], Array]
