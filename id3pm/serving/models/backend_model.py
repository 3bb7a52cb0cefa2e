"""Base class of the Triton models: `execute` enqueues, and each request is answered exactly once, later."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from id3pm.serving.models.logs import log_to_triton, stop_logging
from id3pm.serving.models.metrics import FaceMetrics, StageMetrics
from id3pm.serving.models.triton_backend import InferenceRequest, Reply, code_of, limit_strings, read_request
from id3pm.serving.models.triton_types import Backend, BackendRequest
from id3pm.serving.protocol.liveness import hung_thread
from id3pm.serving.protocol.wire import Control, parse_control


class BackendModel(abc.ABC):
    """One model behind Triton: takes requests at once, and answers them from threads of its own.

    Args:
        pb: Triton's `triton_python_backend_utils`.
        args: What Triton gives to `initialize`.
    """

    _metrics: StageMetrics | FaceMetrics

    def __init__(self, pb: Backend, args: Mapping[str, str]) -> None:
        self._pb = pb
        self._log = log_to_triton(pb)
        limit_strings(pb)
        self._folder = Path(args["model_repository"]) / args["model_version"] / "engine"

    def accept(self, request: BackendRequest) -> None:
        """Takes one request of the Python backend; it is answered later, exactly once, whatever happens."""
        reply = Reply(self._pb, request)
        try:
            call = read_request(request)
            if "control" in call.tensors:
                self._control(parse_control(call.tensors["control"]), call, reply)
            else:
                self._enqueue(call, reply)
        except Exception as error:  # whatever it is, the caller must hear of it
            self._fail(reply, error)

    @property
    def ready(self) -> bool:
        """Whether new work is taken and no thread hangs."""
        state = self._status()
        return not state["draining"] and hung_thread(state) is None

    def close(self) -> None:
        """Finishes what is in flight, and ends the model's threads."""
        stop_logging(self._log)

    @abc.abstractmethod
    def _status(self) -> dict[str, object]:
        """The answer to `ping`."""

    @abc.abstractmethod
    def _control(self, control: Control, call: InferenceRequest, reply: Reply) -> None:
        """Answers a control request."""

    @abc.abstractmethod
    def _enqueue(self, call: InferenceRequest, reply: Reply) -> None:
        """Takes work, to be answered later."""

    def _fail(self, reply: Reply, error: Exception) -> None:
        try:
            self._metrics.error(error, code_of(error))
        finally:
            reply.fail(error)


class TritonModel:
    """Base of every `TritonPythonModel`, in default (not decoupled) mode: `execute` enqueues and returns."""

    backend: ClassVar[Backend]
    kind: ClassVar[type[BackendModel]]

    def initialize(self, args: Mapping[str, str]) -> None:
        """Loads the engine and starts the model's threads."""
        self.model = self.kind(self.backend, args)

    def execute(self, requests: Sequence[BackendRequest]) -> None:
        """Takes requests; each is answered exactly once, later."""
        for request in requests:
            self.model.accept(request)

    def is_ready(self) -> bool:
        """Servers from 26.03 on ask this for the model's readiness, from 26.04 on also for their own."""
        return self.model.ready

    def finalize(self) -> None:
        """Ends the threads and frees the engine."""
        self.model.close()
