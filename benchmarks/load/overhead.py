"""What serving costs: images a second beside the same engines in process, steps after a cancel, the server's memory."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

import ours
from id3pm.face.stage import FaceStage
from id3pm.serving.server import TritonServer
from id3pm_client import AsyncClient, Client
from load import memory, stand_ins
from load.identities import PHOTO
from load.service import ServiceProcess
from report import table
from served import Served
from workers import Worker, interleaved

AT_ONCE = 8
SERVED_SHARE, CANCEL_STEPS, OWN_MB = 0.95, 2, 400.0
"""The targets."""
STAGES: Mapping[str, dict[str, int]] = {
    "denoiser_64": {"steps": 200, "sr_steps": 2},
    "super_resolution": {"steps": 2, "sr_steps": 200},
}
"""Requests that spend their time in one stage."""
STEPS_METRIC = "id3pm_step_seconds_count"
PATIENCE_S = 120.0
SETTLED_S = 2.0
"""Longer than any step of one row."""


def served_share(repository: Path, steps: int, rounds: int) -> dict[str, Any]:
    """Seconds of 8 images at once, in process and through Triton, in turns."""
    worker = Worker(ours.Cascade, {"repository": str(repository), "images": AT_ONCE, "steps": steps})
    with contextlib.ExitStack() as stack:
        stack.callback(worker.close)
        worker.result()
        served = Served(repository, AT_ONCE, steps)
        stack.callback(served.close)
        both: Any = {"in process": worker, "served": served}
        turns, failed = interleaved(both, seconds=0.0, least=rounds, most=rounds)
    if failed:
        raise RuntimeError(f"not measured: {failed}")
    taken = {name: [turn.seconds for turn in each] for name, each in turns.items()}
    medians = {name: statistics.median(each) for name, each in taken.items()}
    return {
        "images": AT_ONCE,
        "steps": steps,
        "seconds": taken,
        "images_per_s": {name: AT_ONCE / median for name, median in medians.items()},
        "share": medians["in process"] / medians["served"],
    }


def cancel_steps(server: TritonServer, vector: NDArray[np.float32], repeats: int) -> dict[str, list[int]]:
    """By stage, the steps that each of several cancelled requests still took.

    The request is alone. Steps are counted from before the cancel is sent until long after the request has ended, so a
    step that was running when the cancel came is one of them.
    """
    return {stage: [asyncio.run(_cancel(server, stage, vector, i)) for i in range(repeats)] for stage in STAGES}


async def _cancel(server: TritonServer, stage: str, vector: NDArray[np.float32], seed: int) -> int:
    async with AsyncClient(server.grpc_url) as client:
        before = steps_made(server.metrics_url, stage)
        task = asyncio.ensure_future(client.generate(vector, seed, **STAGES[stage]))
        await _until(lambda: steps_made(server.metrics_url, stage) >= before + 3, task)
        sent = steps_made(server.metrics_url, stage)
        task.cancel()
        await asyncio.wait({task})
        await _until(lambda: server.ping(stage)["in_flight"] == 0, None)
        await asyncio.sleep(SETTLED_S)
        return steps_made(server.metrics_url, stage) - sent


async def _until(condition: Callable[[], bool], task: asyncio.Future[Any] | None) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not await asyncio.to_thread(condition):
        if time.monotonic() > deadline or (task is not None and task.done()):
            raise RuntimeError("the request ended, or nothing happened, before it could be cancelled")
        await asyncio.sleep(0.005)


def steps_made(metrics_url: str, stage: str) -> int:
    """Batched U-Net calls of a stage so far, from its metrics."""
    return int(metric(metrics_url, STEPS_METRIC, stage))


def metric(metrics_url: str, name: str, model: str) -> float:
    """One of the server's metrics; 0 before its first value."""
    with urllib.request.urlopen(f"http://{metrics_url}/metrics", timeout=10) as response:
        for line in response.read().decode().splitlines():
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
        parts = {_label(process): memory.measure([process]).pss / memory.MB for process in processes}
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


def _label(process: Any) -> str:
    """The model of a stub, or the program's name."""
    model = next((Path(word).parts[-3] for word in process.cmdline() if word.endswith("/model.py")), None)
    return f"{model} ({process.pid})" if model else f"{process.name()} ({process.pid})"


def verdicts(results: Mapping[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """What was asked for, what was measured, whether it is met."""
    if "served" in results:
        share = results["served"]["share"]
        yield f"served at concurrency {AT_ONCE} >= {SERVED_SHARE}x in process", f"{share:.3f}x", share >= SERVED_SHARE
    for stage, steps in results.get("cancel_steps", {}).items():
        yield f"cancel in {stage}: <= {CANCEL_STEPS} steps", f"at most {max(steps)}", max(steps) <= CANCEL_STEPS
    if "own_memory" in results:
        found = results["own_memory"]["own_mb"]
        yield f"memory without engines <= {OWN_MB:g} MB", f"{found:.0f} MB", found <= OWN_MB


def markdown(results: Mapping[str, Any]) -> list[str]:
    """The table of targets."""
    rows = [[asked, found, "met" if met else "**missed**"] for asked, found, met in verdicts(results)]
    return table(["asked for", "measured", ""], rows)
