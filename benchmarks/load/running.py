"""Shared by the load tests: mixtures, a server, reference images, result files."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

import machine
import report
from id3pm.serving.launcher.triton_server import TritonServer
from id3pm_client import Client
from load import generator, summary
from load.arrivals import Kind, burst
from load.identities import identities
from load.references import references
from load.service import ServiceProcess

BAD = Kind(name="bad requests", options={"steps": 100_000}, share=0.05, valid=False)
say: Callable[[str], None] = functools.partial(
    Console(stderr=True).print, markup=False, highlight=False, soft_wrap=True
)


def mixture(steps: str, sr_steps: int | None, urgent: float) -> list[Kind]:
    """Requests of each step count in equal parts, and a share of them all that goes first.

    Args:
        steps: Numbers separated by commas.
        sr_steps: Of super-resolution; `None` for as many as of the 64 px stage.
        urgent: Share of requests of the first step count that go first.
    """
    counts = [int(word) for word in steps.split(",")]
    options = [{"steps": count, "sr_steps": sr_steps or count} for count in counts]
    kinds = [
        Kind(name=f"{count} steps", options=chosen, share=(1 - urgent) / len(counts))
        for count, chosen in zip(counts, options, strict=True)
    ]
    if urgent:
        first = {"priority": 0, **options[0]}
        kinds.append(Kind(name=f"{counts[0]} steps, urgent", options=first, share=urgent))
    return kinds


class Server(Protocol):
    """What is loaded."""

    @property
    def grpc_url(self) -> str:
        """`host:port` of gRPC."""


@contextlib.contextmanager
def serving(repository: Path) -> Iterator[TritonServer]:
    """Triton alone, without a gateway, on free ports."""
    with TritonServer(repository, http_port=0, grpc_port=0, metrics_port=0) as server:
        yield server


@contextlib.contextmanager
def service(repository: Path, out: Path) -> Iterator[ServiceProcess]:
    """`id3pm serve` on free ports: Triton behind its gateway; its log is in `out`.

    Raises:
        RuntimeError: It did not start, or did not end well.
    """
    out.mkdir(parents=True, exist_ok=True)
    process = ServiceProcess(repository, out / "service.log")
    try:
        process.start()
        yield process
        if (status := process.terminate()) != 0:
            raise RuntimeError(f"id3pm serve ended with status {status}")
    finally:
        process.kill()


def people_of(server: Server, count: int) -> NDArray[np.float32]:
    """ID vectors, made by the server's own face stage."""
    with Client(server.grpc_url) as client:
        return identities(client, count)


def prepared(
    repository: Path, kinds: Sequence[Kind], known_seeds: int, people: int = 8
) -> tuple[NDArray[np.float32], generator.Digests]:
    """ID vectors, and the digests of images that are made of them in process before there is any load."""
    with serving(repository) as server:
        vectors = people_of(server, people)
    say("known images, made in process")
    return vectors, references(repository, kinds, vectors, known_seeds)


def capacity(
    server: Server, vectors: NDArray[np.float32], kinds: Sequence[Kind], seed: int, requests: int = 24
) -> float:
    """Images a second when all of a mixture come at once."""
    say(f"capacity: {requests} requests at once")
    flood = burst(kinds, requests, seed=seed, identities=len(vectors))
    records = generator.drive(generator.Generator(server.grpc_url, vectors), flood)
    found = float(summary.summarise(records)["kinds"][summary.ALL]["images_per_s"])
    if not found:
        raise RuntimeError(f"no image came back: {records[0].error}")
    return found


def write(
    out: Path,
    name: str,
    results: Mapping[str, Any],
    lines: Sequence[str],
    docs: Path | None,
    picture: Callable[[Path, Mapping[str, Any]], None] | None = None,
) -> None:
    """JSON, table and picture; and the table into a page of the documentation."""
    out.mkdir(parents=True, exist_ok=True)
    on = machine.machine()
    (out / f"{name}.json").write_text(json.dumps({"machine": on, **results}, indent=1) + "\n")
    lines = [f"{on['cpu']}, {on['cores']} cores.", "", *lines]
    shown = [*lines, "", f"![{name}]({name}.png)"] if picture else lines
    (out / f"{name}.md").write_text("\n".join(shown) + "\n")
    if picture is not None:
        picture(out / f"{name}.png", results)
    if docs is not None:
        report.insert(docs, name, lines)
    say("\n".join(lines))
