"""Shared by the load tests: mixtures, a server, reference images, result files."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

import machine
import report
from id3pm.command_options import FOLDER, REPOSITORY, option
from id3pm.serving.launcher.settings import ServerSettings
from id3pm.serving.launcher.triton_server import TritonServer
from id3pm_client import Client
from load import generator, summary
from load.arrivals import Arrival, Kind, burst, poisson
from load.identities import identities
from load.references import references
from load.service import ServiceProcess

ROOT = Path(__file__).resolve().parents[2]
BAD = Kind(name="bad requests", options={"steps": 100_000}, share=0.05, valid=False)
say: Callable[[str], None] = functools.partial(
    Console(stderr=True).print, markup=False, highlight=False, soft_wrap=True
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """The options that all load tests have."""

    repository: Path = option(type=REPOSITORY, default=ROOT / "triton_repo", help="Models and built engines.")
    out: Path = option(type=FOLDER, default=ROOT / "out" / "load", show_default="out/load")
    seed: int = option(default=0, show_default=True, help="Of the arrivals.")
    docs: Path | None = option(type=click.Path(path_type=Path, dir_okay=False), help="Page to put the table into.")

    def write(
        self,
        name: str,
        results: Mapping[str, Any],
        lines: Sequence[str],
        picture: Callable[[Path, Mapping[str, Any]], None] | None = None,
    ) -> None:
        """Writes JSON, table and picture; and the table into a page of the documentation."""
        self.out.mkdir(parents=True, exist_ok=True)
        on = machine.machine()
        (self.out / f"{name}.json").write_text(json.dumps({"machine": on, **results}, indent=1) + "\n")
        lines = [f"{on['cpu']}, {on['cores']} cores.", "", *lines]
        shown = [*lines, "", f"![{name}]({name}.png)"] if picture else lines
        (self.out / f"{name}.md").write_text("\n".join(shown) + "\n")
        if picture is not None:
            picture(self.out / f"{name}.png", results)
        if self.docs is not None:
            report.insert(self.docs, name, lines)
        say("\n".join(lines))


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixtureOptions(LoadOptions):
    """The options of a load test with mixed requests."""

    steps: str = option(default="10,50", show_default=True, help="Step counts that are mixed in equal parts.")
    sr_steps: int | None = option(type=click.IntRange(1), help="Of super-resolution; as many as at 64 px if not given.")

    def traffic(self, urgent: float = 0.0, known_seeds: int = 2, people: int = 8) -> Traffic:
        """ID vectors, and the digests of images that are made of them in process before there is any load."""
        kinds = mixture(self.steps, self.sr_steps, urgent)
        with serving(self.repository) as server:
            vectors = people_of(server, people)
        say("known images, made in process")
        return Traffic(kinds, vectors, references(self.repository, kinds, vectors, known_seeds), known_seeds)


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


@dataclasses.dataclass(frozen=True, eq=False)
class Traffic:
    """What a load test sends.

    Attributes:
        kinds: The mixture.
        identities: ID vectors, float32 [N, D].
        known: Digests of known images, which some requests ask for; their answers must have the same bits.
        known_seeds: How many images of each kind are known.
    """

    kinds: Sequence[Kind]
    identities: NDArray[np.float32]
    known: generator.Digests
    known_seeds: int

    def arrivals(self, rate: float, count: int, **options: Any) -> list[Arrival]:
        """See `poisson`."""
        people = len(self.identities)
        return poisson(self.kinds, rate, count, identities=people, known_seeds=self.known_seeds, **options)

    def burst(self, count: int, seed: int) -> list[Arrival]:
        """See `burst`."""
        return burst(self.kinds, count, seed=seed, identities=len(self.identities))

    def send(self, url: str, arrivals: Sequence[Arrival]) -> list[generator.Record]:
        """Sends requests when they are due; their records."""
        return generator.drive(generator.Generator(url, self.identities, self.known), arrivals)


class Server(Protocol):
    """What is loaded."""

    @property
    def grpc_url(self) -> str:
        """`host:port` of gRPC."""


@contextlib.contextmanager
def serving(repository: Path) -> Iterator[TritonServer]:
    """Triton alone, without a gateway, on free ports."""
    with TritonServer(repository, ServerSettings.on_free_ports()) as server:
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


def capacity(server: Server, traffic: Traffic, seed: int, requests: int = 24) -> float:
    """Images a second when all of a mixture come at once."""
    say(f"capacity: {requests} requests at once")
    records = traffic.send(server.grpc_url, traffic.burst(requests, seed))
    found = float(summary.summarise(records)["kinds"][summary.ALL]["images_per_s"])
    if not found:
        raise RuntimeError(f"no image came back: {records[0].error}")
    return found
