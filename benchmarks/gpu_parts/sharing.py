"""Both stages on one GPU: one process with two streams, two processes, two processes under NVIDIA MPS.

Each stage computes calls of its own network, one after the other and a call ahead of its reader, as the sampling loop
does. docs/decisions/one_gpu.md has the model of the same question.
"""

from __future__ import annotations

import collections
import contextlib
import multiprocessing
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from gpu_parts.both_stages import cascade_stages
from gpu_parts.paper_networks import inputs_of
from gpu_parts.report import Report
from id3pm.engines.torch_arrays import TorchArrays
from id3pm.engines.torch_engine import UNetEngine

Calls = Callable[[float], float]
"""Computes for so many seconds; calls per second."""
CONTROL = "nvidia-cuda-mps-control"
PIPES = "CUDA_MPS_PIPE_DIRECTORY"
LEFT_S = 8.0
"""Of the part's time, to end what it has started."""


def sharing(report: Report) -> None:
    """Calls per second of each stage, alone and beside the other, in every layout; the shares of what it is alone."""
    add, seconds = report.table(), 0.2 if report.small else 3.0
    with _both(report) as both:
        alone = [_rates([calls], seconds)[0] for calls in both]
        add(way="each alone", base_calls_per_s=alone[0], sr_calls_per_s=alone[1])
        _line(add, "one process, two streams", alone, _rates(both, seconds))
    layouts = {"two processes": _without_mps, "two processes, MPS": _under_mps}
    for way, layout in layouts.items():
        try:
            with layout() as (environment, joined):
                _line(add, way, alone, _in_processes(report, seconds, environment, joined))
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            add(way=f"{way}: not here ({str(error)[:200]})")


def _line(add: Callable[..., None], way: str, alone: list[float], rates: list[float]) -> None:
    """`together` is 1 where taking turns would make as much."""
    base, sr = (rate / one for rate, one in zip(rates, alone, strict=True))
    add(
        way=way,
        base_calls_per_s=rates[0],
        sr_calls_per_s=rates[1],
        base_share=base,
        sr_share=sr,
        together=base + sr,
    )


@contextlib.contextmanager
def _both(report: Report) -> Iterator[list[Calls]]:
    """Both stages in this process, each on a stream of its own."""
    loaded = [_loaded(report, stage) for stage in range(2)]
    yield [calls for _, calls in loaded]
    for engine, _ in loaded:
        engine.close()


def _loaded(report: Report, number: int) -> tuple[UNetEngine, Calls]:
    """A stage's engine (0: 64 px, 1: super-resolution) with the calls of 8 images, and its work."""
    stage, images = cascade_stages(report.small)[number], 2 if report.small else 8
    rows = images * stage.config.evaluations_per_step
    arrays = TorchArrays(report.device, own_stream=True)
    engine = stage.engine(report, "fp32" if report.small else "fp16", rows, arrays)
    there = inputs_of(report, stage, rows)
    report.synchronize()

    def calls(seconds: float) -> float:
        arrays.use()
        count, reading = 0, collections.deque([arrays.to_host(engine.run(there)[:1, :1, :1, :1])])
        start = time.perf_counter()
        while time.perf_counter() - start < seconds:
            reading.append(arrays.to_host(engine.run(there)[:1, :1, :1, :1]))
            reading.popleft()()
            count += 1
        return count / (time.perf_counter() - start)

    calls(0.0)
    return engine, calls


def _rates(both: list[Calls], seconds: float) -> list[float]:
    """All of them at once, a thread each."""
    start = threading.Barrier(len(both))

    def run(calls: Calls) -> float:
        start.wait(60)
        return calls(seconds)

    with ThreadPoolExecutor(len(both)) as pool:
        return list(pool.map(run, both))


def _in_processes(
    report: Report, seconds: float, environment: dict[str, str], joined: Callable[[], None]
) -> list[float]:
    """The same in a process for each stage.

    Args:
        report: Where they run.
        seconds: For which they compute.
        environment: Of the processes, besides this one's.
        joined: Raises `RuntimeError` where the layout is not what it should be, once both have loaded.

    Raises:
        RuntimeError: A process ended early, or there is no time left.
    """
    context, ends, processes = multiprocessing.get_context("spawn"), [], []
    try:
        for stage in range(2):
            end, other = context.Pipe()
            given = (other, report, stage, seconds, environment)
            processes.append(context.Process(target=_stage_process, args=given, daemon=True))
            processes[-1].start()
            other.close()
            ends.append(end)
        for end in ends:
            _received(report, end)
        joined()
        for end in ends:
            end.send("go")
        return [_received(report, end) for end in ends]
    finally:
        for end in ends:
            end.close()  # ends a process that still waits
        for process in processes:
            process.join(3)
            if process.is_alive():
                process.kill()


def _stage_process(end: Connection, report: Report, stage: int, seconds: float, environment: dict[str, str]) -> None:
    """One stage's process: says that it is ready, waits for the word, computes, says how fast."""
    os.environ.update(environment)  # CUDA reads it when it is first used
    engine, calls = _loaded(report, stage)
    end.send(0.0)
    with contextlib.suppress(EOFError):
        end.recv()
        end.send(calls(seconds))
    engine.close()


def _received(report: Report, end: Connection) -> float:
    if not end.poll(max(report.left_s - LEFT_S, 0.0)):
        raise RuntimeError("no time left")
    try:
        found: float = end.recv()
    except EOFError as error:
        raise RuntimeError("a process ended early; the log has why") from error
    return found


@contextlib.contextmanager
def _without_mps() -> Iterator[tuple[dict[str, str], Callable[[], None]]]:
    """An environment in which processes find no MPS, also where the machine has one."""
    with tempfile.TemporaryDirectory() as nothing:
        yield {PIPES: nothing}, lambda: None


@contextlib.contextmanager
def _under_mps() -> Iterator[tuple[dict[str, str], Callable[[], None]]]:
    """An MPS of its own, ended afterwards: the environment of its processes, and the check that they have joined it.

    Raises:
        RuntimeError: It is not installed.
        subprocess.SubprocessError: It does not start.
    """
    control = shutil.which(CONTROL)
    if control is None:
        raise RuntimeError(f"no {CONTROL}")
    with tempfile.TemporaryDirectory() as folder:
        environment = {PIPES: str(Path(folder) / "pipes"), "CUDA_MPS_LOG_DIRECTORY": str(Path(folder) / "logs")}
        for place in environment.values():
            Path(place).mkdir()

        def run(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
            whole = {**os.environ, **environment}
            return subprocess.run([control, *arguments], env=whole, check=True, text=True, timeout=LEFT_S / 2, **more)

        def joined() -> None:
            if not run(input="get_server_list\n", stdout=subprocess.PIPE).stdout.strip():
                raise RuntimeError("MPS is there, but no process has joined it")

        run("-d", stdin=subprocess.DEVNULL)  # without a pipe to read, which the daemon would hold open
        try:
            yield environment, joined
        finally:
            run(input="quit -t 1\n")
