"""Cost of serving: each layer, steps after a cancel, memory; and what is asked of them."""

from __future__ import annotations

import contextlib
import functools
import queue
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import tritonclient.grpc
from numpy.typing import NDArray
from tritonclient.utils import np_to_triton_dtype

from id3pm.face.stage import FaceStage
from id3pm.serving.launcher.control import connection_to, control
from id3pm.serving.launcher.triton_server import TritonServer
from id3pm_client import Client
from load import layers, memory, stand_ins
from load.identities import PHOTO
from load.service import ServiceProcess
from report import table
from workers import Worker

AT_ONCE = 8
SERVED_SHARE, CANCEL_STEPS, OWN_MB = 0.95, 2, 400.0
"""The targets."""
STAGES: Mapping[str, dict[str, int]] = {
    "denoiser_64": {"steps": 200, "sr_steps": 2},
    "super_resolution": {"steps": 2, "sr_steps": 200},
}
"""Requests that spend their time in one stage."""
STEPS_METRIC = "id3pm_step_seconds_count"
SETTLED_S = 2.0
"""Longer than a step of one row, and than it takes a step to be seen in the metrics."""


def cancel_steps(server: TritonServer, vector: NDArray[np.float32], repeats: int) -> dict[str, list[int]]:
    """By stage, the steps that each of several requests still took when it was cancelled through the ensemble.

    The request is alone. All steps that the stage has made of it in the end, less those it had made just before the
    cancel was sent: a step that was running then is counted.
    """
    return {stage: [_cancel(server, stage, vector, seed) for seed in range(repeats)] for stage in STAGES}


def _cancel(server: TritonServer, stage: str, vector: NDArray[np.float32], seed: int) -> int:
    request_id = f"cancelled-{stage}-{seed}-{time.monotonic_ns()}"
    ask = functools.partial(control, server.http_url, stage)
    before = steps_made(server.metrics_url, stage)
    direct = [("grpc.enable_http_proxy", 0)]
    with contextlib.closing(tritonclient.grpc.InferenceServerClient(server.grpc_url, channel_args=direct)) as client:
        values = {"embedding": vector[None], "seed": np.array([[seed]])}
        values |= {name: np.array([[value]], dtype=np.int32) for name, value in STAGES[stage].items()}
        inputs = [
            tritonclient.grpc.InferInput(name, value.shape, np_to_triton_dtype(value.dtype)).set_data_from_numpy(value)
            for name, value in values.items()
        ]
        ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        client.async_infer(
            "id3pm", inputs, callback=lambda result, error: ended.put(error), request_id=request_id, client_timeout=60
        )
        while (step := _step(ask("progress", request_id))) < 3:
            if not ended.empty():
                raise RuntimeError(f"a request ended before it could be cancelled: {ended.get()}")
        ask("cancel", request_id)
        if ended.get(timeout=60) is None:
            raise RuntimeError("a cancelled request was answered with an image")
    time.sleep(SETTLED_S)
    return steps_made(server.metrics_url, stage) - before - step


def _step(progress: Mapping[str, Any]) -> int:
    """Steps made, of the answer to `progress`; 0 where the stage does not have the request yet."""
    return int(progress["rows"][0]["step"]) if progress["found"] else 0


def steps_made(metrics_url: str, stage: str) -> int:
    """Batched U-Net calls of a stage so far, from its metrics."""
    return int(metric(metrics_url, STEPS_METRIC, stage))


def metric(metrics_url: str, name: str, model: str) -> float:
    """One of the server's metrics; 0 before its first value."""
    with contextlib.closing(connection_to(metrics_url, 10.0)) as connection:
        connection.request("GET", "/metrics")
        for line in connection.getresponse().read().decode().splitlines():
            if line.startswith(f"{name}{{") and f'model="{model}"' in line:
                return float(line.rsplit(" ", 1)[1])
    return 0.0


def own_memory(repository: Path, out: Path) -> dict[str, Any]:
    """PSS of all processes of `id3pm serve` whose U-Nets are one small convolution, after 8 images at once.

    The face models are real. Their share, which is taken off, is what loading and using them adds to a process that has
    imported the same libraries. What is left is Triton, Python, libraries, our code and the buffers for 256 px images.

    Args:
        repository: Our models, and the face engine.
        out: Where the repository with the stand-ins is built.
    """
    copy = stand_ins.build_repository(out / "stand_ins", repository)
    service = ServiceProcess(copy, out / "own_memory.log")
    with contextlib.ExitStack() as stack:
        stack.callback(service.kill)
        service.start()
        client = stack.enter_context(Client(service.grpc_url))
        vector = client.embed(PHOTO).vector
        for _ in range(3):
            client.generate(vector, range(AT_ONCE), steps=5, sr_steps=3)
        processes = service.processes()
        parts = {memory.label(process): memory.measure([process]).pss / memory.MB for process in processes}
        total = memory.measure(processes)
        service.terminate()
    face = Worker(FaceEngine, {"folder": str(repository / "face_embedding/1/engine")})
    try:
        face.result()
        share = face.turn() / memory.MB
    finally:
        face.close()
    return {
        "own_mb": total.pss / memory.MB - share,
        "pss_mb": total.pss / memory.MB,
        "rss_mb": total.rss / memory.MB,
        "face_engine_mb": share,
        "parts_mb": parts,
    }


class FaceEngine:
    """In a process of its own: what the face models add to it."""

    def __init__(self, folder: str) -> None:
        import cv2  # noqa: F401 - the libraries belong to the server, so they come first
        import onnxruntime  # noqa: F401

        self._before = _private()
        self._stage = FaceStage.load(Path(folder))
        self._stage.embed(PHOTO.read_bytes())
        self._after = _private()

    def sample(self) -> int:
        """Bytes."""
        return self._after - self._before


def _private() -> int:
    return memory.measure([psutil.Process()]).uss


def verdicts(results: Mapping[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """What was asked for, what was measured, whether it is met."""
    if "layers" in results:
        measured = results["layers"]
        for way in (layers.ENSEMBLE, layers.GATEWAY):
            share = layers.share(measured, way)
            asked = f"{way}, {measured['images']} at once: >= {SERVED_SHARE}x the images/s in process"
            yield asked, f"{share:.3f}x", share >= SERVED_SHARE
    for stage, steps in results.get("cancel_steps", {}).items():
        yield f"cancel in {stage}: <= {CANCEL_STEPS} steps", f"at most {max(steps)}", max(steps) <= CANCEL_STEPS
    if "own_memory" in results:
        found = results["own_memory"]["own_mb"]
        yield f"memory without engines <= {OWN_MB:g} MB", f"{found:.0f} MB", found <= OWN_MB


def markdown(results: Mapping[str, Any]) -> list[str]:
    """The table of targets, and those of the layers."""
    rows = [[asked, found, "met" if met else "**missed**"] for asked, found, met in verdicts(results)]
    lines = table(["asked for", "measured", ""], rows)
    for name, about in (("layers", "the engines"), ("layers_alone", "stand-ins, which compute almost nothing")):
        if name in results:
            of = results[name]
            steps = f"{of['steps']} + {of['sr_steps']} steps, {of['images']} images at once"
            busy = f"{of['load_average_before']:.1f} processes of others had work before"
            lines += ["", f"With {about}, {steps} ({busy}):", "", *layers.markdown(of)]
    return lines
