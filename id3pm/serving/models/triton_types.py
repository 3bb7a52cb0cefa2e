"""Types of Triton's Python backend: the parts of `triton_python_backend_utils` that the models use.

The module exists only inside a Triton stub, so it is handed to the models as a `Backend`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from id3pm.serving.protocol.wire import Array


class BackendTensor(Protocol):
    """`pb_utils.Tensor`."""

    def name(self) -> str:
        """Name on the wire."""

    def as_numpy(self) -> Array:
        """A view of Triton's memory; strings are objects."""


class ResponseSender(Protocol):
    """Answers one request, from any thread."""

    def is_cancelled(self) -> bool:
        """Whether the caller has gone or cancelled."""

    def send(self, response: object, flags: int) -> None:
        """Sends an `InferenceResponse`."""


class BackendRequest(Protocol):
    """`pb_utils.InferenceRequest`; its memory is gone when `execute` returns."""

    def request_id(self) -> str:
        """What the sender called it; may be empty."""

    def parameters(self) -> str:
        """A JSON object of scalars, or nothing."""

    def timeout(self) -> int:
        """Microseconds; 0 is none."""

    def inputs(self) -> Sequence[BackendTensor]:
        """The tensors that were sent."""

    def requested_output_names(self) -> Sequence[str]:
        """The outputs that were asked for."""

    def get_response_sender(self) -> ResponseSender:
        """What answers it."""


class BackendMetric(Protocol):
    """`pb_utils.Metric`: a counter, a gauge or a histogram."""

    def increment(self, value: float) -> None:
        """Adds to a counter."""

    def set(self, value: float) -> None:
        """Sets a gauge."""

    def observe(self, value: float) -> None:
        """Adds a value to a histogram."""


class BackendMetricFamily(Protocol):
    """`pb_utils.MetricFamily`: metrics of one name."""

    def Metric(  # noqa: N802 - Triton's name
        self, labels: Mapping[str, str], buckets: Sequence[float] | None = None
    ) -> BackendMetric:
        """One metric of the family."""


class BackendLogger(Protocol):
    """`pb_utils.Logger`."""

    def log_info(self, message: str) -> None:
        """Logs a line, as the next two."""

    def log_warn(self, message: str) -> None:
        """See `log_info`."""

    def log_error(self, message: str) -> None:
        """See `log_info`."""


class Backend(Protocol):
    """`triton_python_backend_utils`. `TritonError` and `MetricFamily` also hold Triton's constants."""

    TRITONSERVER_RESPONSE_COMPLETE_FINAL: int
    Logger: BackendLogger
    Tensor: Callable[[str, Array], BackendTensor]
    TritonError: Callable[[str, object], object]
    InferenceResponse: Callable[..., object]
    MetricFamily: Callable[..., BackendMetricFamily]
    deserialize_bytes_tensor: Callable[[Array], Array]
