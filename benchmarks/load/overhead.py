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
from numpy.typing import NDArray

import builds
import ours
from id3pm.serving.server import TritonServer
from id3pm_client import AsyncClient, Client
from load import memory
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

    The request is alone. Steps are counted from before the cancel is sent until the stage says that it is idle, so a
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


def own_memory(out: Path) -> dict[str, Any]:
    """PSS of all processes of a server whose U-Nets are nearly nothing, after it has sampled 8 images at once.

    What is left is Triton, Python, the runtime's library, our code and its buffers for 256 px images; and the face
    models, which are real, so the figure is rather too high.
    """
    repository = tiny_repository(out / "tiny_repository")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(TritonServer(repository, http_port=0, grpc_port=0, metrics_port=0))
        client = stack.enter_context(Client(server.grpc_url))
        client.embed(builds.ROOT / "demo" / "astronaut.jpg")
        vector = np.full(128, 128**-0.5, dtype=np.float32)
        for _ in range(3):
            client.generate(vector, range(AT_ONCE), steps=5, sr_steps=3)
        processes = memory.family(server.pid)
        parts = {_label(process): memory.measure([process]).pss / memory.MB for process in processes}
        total = memory.measure(processes)
    return {"pss_mb": total.pss / memory.MB, "rss_mb": total.rss / memory.MB, "parts_mb": parts}


def _label(process: Any) -> str:
    """The model of a stub, or the program's name."""
    model = next((Path(word).parts[-3] for word in process.cmdline() if word.endswith("/model.py")), None)
    return f"{model} ({process.pid})" if model else f"{process.name()} ({process.pid})"


def tiny_repository(folder: Path) -> Path:
    """The models of this checkout on engines of networks with hardly any weights; built when first used."""
    from load.tiny_bundle import write_tiny_bundle  # here: it brings PyTorch

    if not (folder / "super_resolution/1/engine/manifest.json").exists():
        import shutil

        kept = shutil.ignore_patterns("engine", "__pycache__", ".engine-*")
        shutil.copytree(builds.ROOT / "triton_repo", folder, ignore=kept, dirs_exist_ok=True)
        write_tiny_bundle(folder.parent / "tiny_bundle")
        build = builds.Build("onnx-cpu", "fp32")
        if (reason := builds.ensure(build, folder.parent / "tiny_bundle", folder, "all", 16)) is not None:
            raise RuntimeError(f"the engines of the tiny networks were not built: {reason}")
    return folder


def verdicts(results: Mapping[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """What was asked for, what was measured, whether it is met."""
    if "served" in results:
        share = results["served"]["share"]
        yield f"served at concurrency {AT_ONCE} >= {SERVED_SHARE}x in process", f"{share:.3f}x", share >= SERVED_SHARE
    for stage, steps in results.get("cancel_steps", {}).items():
        yield f"cancel in {stage}: <= {CANCEL_STEPS} steps", f"at most {max(steps)}", max(steps) <= CANCEL_STEPS
    if "own_memory" in results:
        found = results["own_memory"]["pss_mb"]
        yield f"memory without engines <= {OWN_MB:g} MB", f"{found:.0f} MB (PSS)", found <= OWN_MB


def markdown(results: Mapping[str, Any]) -> list[str]:
    """The table of targets."""
    rows = [[asked, found, "met" if met else "**missed**"] for asked, found, met in verdicts(results)]
    return table(["asked for", "measured", ""], rows)
