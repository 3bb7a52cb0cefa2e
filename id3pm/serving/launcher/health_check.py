"""Health checks of the Triton process: processes, pings of the stages, a small request."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import time
import uuid
from collections.abc import Mapping

from id3pm.errors import ServerError
from id3pm.serving.launcher.control import AnswerTimeoutError, ExhaustedError, exchange, is_exhausted
from id3pm.serving.launcher.process import children, runs
from id3pm.serving.launcher.triton_server import WAYS_IN, TritonServer
from id3pm.serving.protocol.liveness import LOOP_S, LOOP_STEPS, hung_thread, rows_of
from id3pm.serving.protocol.served_models import FACE_MODEL, STAGE_MODELS

_STUB = "triton_python_backend_stub"


@dataclasses.dataclass(frozen=True, kw_only=True)
class HealthCheckSettings:
    """Times of the health checks; the defaults find every fault within 5 s.

    Attributes:
        interval_s: From one check to the next.
        ping_s: Longest time for a stage to answer; two failures in a row are a fault.
        loop_s: See `id3pm.serving.protocol.liveness.LOOP_S`.
        loop_steps: The same.
        probe_every_s: From one small request to the next, when there is no other work.
        busy_probe_every_s: The same while there is.
        probe_s: Longest time for that request, unless others are served first.
        start_probe_s: The same right after the start, when engines are still cold.
        backoff_s: From a failed start to the next one; doubled after each.
    """

    interval_s: float = 1.0
    ping_s: float = 1.5
    loop_s: float = LOOP_S
    loop_steps: float = LOOP_STEPS
    probe_every_s: float = 30.0
    busy_probe_every_s: float = 120.0
    probe_s: float = 30.0
    start_probe_s: float = 120.0
    backoff_s: float = 1.0


class HealthCheck:
    """Checks one server process from the moment it is ready."""

    def __init__(self, server: TritonServer, health_check_settings: HealthCheckSettings) -> None:
        self._server = server
        self._settings = health_check_settings
        self._stubs = stubs(server.pid)
        self._failed_pings = dict.fromkeys(server.controlled, 0)
        self._refused: set[str] = set()  # ports that accepted no connection at the last check
        self._steps: dict[str, int] = {}  # steps of each model at its last answer
        self._quiet_since = self._probed = time.monotonic()
        self._prober = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="probe")
        self._probe: concurrent.futures.Future[None] | None = None
        self._steps_at_probe: dict[str, int] = {}

    def fault(self) -> str | None:
        """The fault as text for the log; `None` without a fault, or if there is no room for a check."""
        try:
            return self._fault()
        except ExhaustedError:
            return None
        except OSError as error:
            if is_exhausted(error):
                return None
            raise

    def _fault(self) -> str | None:
        if (status := self._server.poll()) is not None:
            return f"tritonserver died (exit status {status})"
        for pid, model in self._stubs.items():
            if not runs(pid):
                return f"the Python process of {model} died (process {pid})"
        return self._ping() or self._closed() or self._probe_result()

    def close(self) -> None:
        """Starts no more probes."""
        self._prober.shutdown(wait=False)

    def _ping(self) -> str | None:
        busy = False
        for model in self._server.controlled:
            try:
                state = self._server.ping(model, timeout_s=self._settings.ping_s)
            except ExhaustedError:
                raise
            except ServerError as error:  # no further waiting in this round
                self._failed_pings[model] += 1
                return None if self._failed_pings[model] < 2 else f"{model} failed two pings: {error}"
            self._failed_pings[model] = 0
            if (hung := hung_thread(state, self._settings.loop_s, self._settings.loop_steps)) is not None:
                return f"{hung[0]} of {model} hangs: {hung[1]}"
            if state["draining"]:  # supervision ends before the service lets its stages drain
                return f"{model} takes no new requests, though this service did not tell it so"
            busy = busy or rows_of(state) > 0
            self._steps[model] = state.get("steps", 0)
        if busy and self._probe is None:
            self._quiet_since = time.monotonic()
        return None

    def _closed(self) -> str | None:
        """Checks the other ports: pings go over HTTP, and would not notice a removed gRPC socket."""
        refused = self._server.refused(self._settings.ping_s)
        for name in WAYS_IN:
            why = refused.get(name)
            if why is None:
                self._refused.discard(name)
            elif name in self._refused:
                return f"tritonserver takes no {name} connections: {why}"
            else:
                self._refused.add(name)
        return None

    def _probe_result(self) -> str | None:
        now = time.monotonic()
        if self._probe is None:
            quiet_s, since_s = now - self._quiet_since, now - self._probed
            if quiet_s > self._settings.probe_every_s or since_s > self._settings.busy_probe_every_s:
                self._steps_at_probe = dict(self._steps)
                self._probe = self._prober.submit(probe, self._server, self._settings.probe_s)
            return None
        if not self._probe.done():
            return None
        error = self._probe.exception()
        if isinstance(error, ExhaustedError):
            error = None  # it was never sent
        self._probe, self._quiet_since, self._probed = None, now, now
        if error is None or (isinstance(error, AnswerTimeoutError) and self._steps != self._steps_at_probe):
            return None  # answered; or others came first, and their work goes on
        return f"the probe failed: {error}"


def stubs(pid: int) -> dict[int, str]:
    """The Python processes of a `tritonserver`: the model of each, by process id."""
    found = {}
    for child, command in children(pid).items():
        if command[0].endswith(_STUB):
            folders = command[1].split("/") if len(command) > 1 else []
            known = [name for name in (*STAGE_MODELS.values(), FACE_MODEL) if name in folders]
            found[child] = known[-1] if known else "a model"
    return found


def probe(server: TritonServer, timeout_s: float) -> None:
    """One image of one step through all stages, after all other work; and a question to the face model's thread.

    Raises:
        AnswerTimeoutError: There was no answer in time. If others were served first, that is no fault.
        ServerError: There was an error.
    """
    base = server.manifests["base"]
    size = base.unet.identity_dim
    assert size is not None  # the 64 px stage takes ID vectors
    body = {
        "id": f"probe-{uuid.uuid4().hex}",
        "inputs": [
            {"name": "embedding", "shape": [1, size], "datatype": "FP32", "data": [size**-0.5] * size},
            {"name": "priority", "shape": [1, 1], "datatype": "INT32", "data": [9]},
        ],
        "parameters": {"seed": 0, "steps": 1, "sr_steps": 1},
        "outputs": [{"name": "receipt", "parameters": {"binary_data": False}}],
    }
    status, answer = _post(server, "id3pm", body, timeout_s)
    if status not in (200, 503):
        raise ServerError(f"id3pm answered {answer}")
    face = {"inputs": [{"name": "face", "shape": [1, 1], "datatype": "BYTES", "data": ["largest"]}]}
    status, answer = _post(server, FACE_MODEL, face, timeout_s)
    if status not in (400, 503):  # it says that the photograph is missing, so it is alive
        raise ServerError(f"{FACE_MODEL} answered {answer}")


def _post(server: TritonServer, model: str, body: Mapping[str, object], timeout_s: float) -> tuple[int, str]:
    try:
        status, answer = exchange(server.http_url, "POST", f"/v2/models/{model}/infer", json.dumps(body), timeout_s)
    except ServerError as error:
        raise type(error)(f"{model}: {error}") from error
    return status, answer.decode(errors="replace")[:300]
