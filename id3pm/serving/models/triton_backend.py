"""Reads a request of Triton's Python backend, and answers it exactly once."""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from id3pm.errors import Id3pmError, InvalidInputError
from id3pm.serving.models.logs import shown
from id3pm.serving.models.triton_types import Backend, BackendRequest, BackendTensor
from id3pm.serving.protocol import error_envelope
from id3pm.serving.protocol.error_envelope import ERROR_TAG, MAX_TAG, StageError, triton_code
from id3pm.serving.protocol.limits import (
    MAX_ID,
    MAX_NUMBERS,
    MAX_PARAMETERS,
    MAX_STRINGS,
    MAX_TIMEOUT_US,
)
from id3pm.serving.protocol.status import cut, internal
from id3pm.serving.protocol.wire import CALLER, DEADLINE_IN, OWNER, Array, RequestKey, passed_deadline

logger = logging.getLogger(__name__)
_LEVELS = {
    "INVALID_ARG": logging.INFO,
    "UNAVAILABLE": logging.WARNING,
    "CANCELLED": logging.INFO,
    "INTERNAL": logging.ERROR,
}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class InferenceRequest:
    """A request as the models see it: copies, because Triton frees its memory when `execute` returns.

    Attributes:
        id: The sender's id; may be empty.
        tensors: Input tensors by name, each [rows, ...].
        parameters: Request parameters by name, JSON scalars.
        wanted: Names of the requested outputs.
        deadline: `time.monotonic()` seconds after which no caller waits for the answer, or `None`.
        owner: Owner of the id; `None` where the gateway did not name it. See `id3pm.serving.protocol.wire.OWNER`.
        caller: The caller that its share of the machine is counted to.
    """

    id: str
    tensors: Mapping[str, Array]
    parameters: Mapping[str, object]
    wanted: frozenset[str]
    deadline: float | None
    owner: str | None = None
    caller: str = ""

    @property
    def key(self) -> RequestKey:
        """The request's id with its owner."""
        return RequestKey(self.owner, self.id)

    @property
    def rows(self) -> int:
        """Triton's batch dimension, which all tensors share."""
        return len(next(iter(self.tensors.values())))

    def tensor(self, name: str) -> Array:
        """An input tensor.

        Raises:
            InvalidInputError: It was not sent.
        """
        if name not in self.tensors:
            raise InvalidInputError(f"{name} is missing: send it as an input tensor")
        return self.tensors[name]


def read_request(request: BackendRequest) -> InferenceRequest:
    """A request of the Python backend.

    Raises:
        InvalidInputError: The timeout parameter is not a whole number of microseconds, or a value is longer than any
            valid one.
    """
    if len(request.request_id()) > MAX_ID:
        raise InvalidInputError(f"the request id has {len(request.request_id())} characters: at most {MAX_ID}")
    sent = request.parameters() or "{}"
    if len(sent) > MAX_PARAMETERS:
        raise InvalidInputError(
            f"the request parameters have {len(sent)} characters together: at most {MAX_PARAMETERS} are allowed"
        )
    parameters = json.loads(sent)
    owner, caller = parameters.pop(OWNER, None), parameters.pop(CALLER, "")
    parameters.pop(ERROR_TAG, None)  # `Reply` has read it
    # gRPC and HTTP infer set the request's own timeout; HTTP generate passes it on as a mere parameter.
    timeout_us = request.timeout() or parameters.get("timeout", 0)
    if isinstance(timeout_us, bool) or not isinstance(timeout_us, int) or not 0 <= timeout_us <= MAX_TIMEOUT_US:
        raise InvalidInputError(
            f"timeout={str(timeout_us)[:64]!r}: expected a whole number of microseconds, at most {MAX_TIMEOUT_US}"
        )
    tensors = {tensor.name(): _copied(tensor) for tensor in request.inputs()}
    limits = [time.monotonic() + timeout_us / 1e6 if timeout_us else None]
    limits += [passed_deadline(tensors.pop(name)) for name in DEADLINE_IN if name in tensors]
    return InferenceRequest(
        id=request.request_id(),
        tensors=tensors,
        parameters=parameters,
        wanted=frozenset(request.requested_output_names()),
        deadline=min((limit for limit in limits if limit is not None), default=None),
        owner=None if owner is None else str(owner),
        caller=str(caller),
    )


def _copied(tensor: BackendTensor) -> Array:
    """A tensor's content, unless it is larger than any valid one."""
    array = tensor.as_numpy()
    kind, most = ("strings", MAX_STRINGS) if array.dtype == object else ("numbers", MAX_NUMBERS)
    if array.size > most:
        raise InvalidInputError(f"{tensor.name()} has {array.size} {kind}: at most {most} are allowed")
    return np.array(array)


class _TooMany(np.ndarray[Any, Any]):
    """Placeholder for more strings than are read: it takes any shape; `read_request` refuses it for its size."""

    def reshape(self, *shape: Any, **order: object) -> Array:
        """As many empty strings as wanted, which take no memory."""
        return np.broadcast_to(np.array(b"", dtype=object), *shape)


def limit_strings(pb: Backend) -> None:
    """Makes Triton's Python backend read no more than `MAX_STRINGS` strings of an input tensor.

    It reads them one by one before `execute` sees a request, some microseconds each: 64 MiB of empty strings would take
    longer than any supervisor waits. It looks its function up by name for every tensor, so it can be replaced. Servers
    from 25.10 on read them in C++ (triton-inference-server/python_backend#416): for those `_copied` refuses them.

    Args:
        pb: Triton's `triton_python_backend_utils`.
    """
    pb.deserialize_bytes_tensor = _read_strings


def _read_strings(encoded: Array) -> Array:
    """The strings of an encoded tensor, uint8 [bytes]: each has its length in four bytes before it."""
    content = np.ascontiguousarray(encoded).data
    strings: list[bytes] = []
    offset = 0
    while offset < len(content):
        if len(strings) == MAX_STRINGS:
            return np.empty(0, dtype=object).view(_TooMany)
        start = offset + 4
        offset = start + int.from_bytes(content[offset:start], "little")
        strings.append(bytes(content[start:offset]))
    array = np.empty(len(strings), dtype=object)
    array[:] = strings
    return array


class Reply:
    """The one response to a request, which any thread may send. In Triton's default mode there must be exactly one.

    Attributes:
        id: The sender's id of the request.
        own: Outputs of this caller alone, beside those that all callers of the same work get.
    """

    def __init__(self, pb: Backend, request: BackendRequest) -> None:
        self.id: str = request.request_id()
        self.own: dict[str, Array] = {}
        self._pb = pb
        self._error_tag = _error_tag(request)
        self._sender = request.get_response_sender()
        self._lock = threading.Lock()
        self._sent = False

    @property
    def abandoned(self) -> bool:
        """Whether the caller has gone: known for direct gRPC calls, never through ensembles or HTTP."""
        with self._lock:
            return not self._sent and bool(self._sender.is_cancelled())

    def send(self, outputs: Mapping[str, Array]) -> None:
        """Answers with tensors; does nothing where the request is answered already."""
        tensors = [
            self._pb.Tensor(name, np.ascontiguousarray(array)) for name, array in {**outputs, **self.own}.items()
        ]
        self._finish(self._pb.InferenceResponse(tensors))

    def fail(self, error: BaseException) -> None:
        """Answers with an error, which is logged; does nothing where the request is answered already."""
        described = describe(error)
        code, text = triton_code(described.code), described.text.replace("\n", " ")
        unexpected = None if isinstance(error, Id3pmError) else error
        logger.log(_LEVELS[code], "request %s: %s: %s", shown(self.id), code, text, exc_info=unexpected)
        message = error_envelope.write(self._error_tag, described)
        triton_error = self._pb.TritonError(message, getattr(self._pb.TritonError, code))
        self._finish(self._pb.InferenceResponse(error=triton_error))

    def _finish(self, response: object) -> None:
        with self._lock:
            if self._sent:
                return
            self._sent = True
            self._sender.send(response, flags=self._pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def code_of(error: BaseException) -> str:
    """Triton's error code for an exception."""
    return triton_code(describe(error).code)


def describe(error: BaseException) -> StageError:
    """An exception as its request's sender meets it: never with a path or a traceback."""
    if isinstance(error, Id3pmError):
        return StageError(error.code, cut(str(error)), error.retry_after_s)
    return StageError("internal", str(internal(error)))


def _error_tag(request: BackendRequest) -> str:
    sent = request.parameters() or "{}"
    if ERROR_TAG not in sent or len(sent) > MAX_PARAMETERS:
        return ""
    return str(json.loads(sent).get(ERROR_TAG, ""))[:MAX_TAG]
