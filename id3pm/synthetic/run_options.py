"""The options of `id3pm dataset run`."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import click

from id3pm.command_options import EXISTING_FILE, REPOSITORY, argument, given, option
from id3pm.errors import InvalidInputError
from id3pm.synthetic.maker import WorkerSettings
from id3pm.synthetic.processes import devices_of, in_processes
from id3pm.synthetic.ray_cluster import RayOptions, on_ray
from id3pm.synthetic.run import Make, in_this_process

INDEX_VARIABLES = ["JOB_COMPLETION_INDEX", "SLURM_ARRAY_TASK_ID"]
NEEDS = {
    "ray": ("workers", "cpus", "gpus"),
    "server": ("token_file", "root_certificates", "in_flight", "timeout"),
}
"""Options that mean something with these only."""
ENGINES = ("device", "threads")
"""Options of the engines that a worker loads itself."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options of `id3pm dataset run`."""

    plan: str = argument()
    out: str = option(required=True, help="Folder, or URL such as s3://bucket/faces.")
    repository: Path = option(type=REPOSITORY, default=Path("triton_repo"), help="Built engines and face models.")
    device: str | None = option(help="cpu, cuda or cuda:0,cuda:1: a process for each.  [default: cpu]")
    threads: int | None = option(type=click.IntRange(1), help="CPU threads of each engine; all cores if not given.")
    processes: int | None = option(type=click.IntRange(1), help="Processes of each device.  [default: 1]")
    server: tuple[str, ...] = option(multiple=True, help="gRPC host:port of a service; may be repeated.")
    token_file: Path | None = option(type=EXISTING_FILE, help="Of the services.")
    root_certificates: Path | None = option(type=EXISTING_FILE, help="PEM; the services use TLS.")
    in_flight: int | None = option(type=click.IntRange(1), help="Images on the way to services at once.  [default: 32]")
    timeout: float | None = option(type=click.FloatRange(1.0), help="Seconds for a served image.  [default: 300]")
    ray: str | None = option(help="auto, HOST:PORT, ray://HOST:PORT, or local (extra ray).")
    workers: int | None = option(type=click.IntRange(1), help="Ray actors.  [default: as many as fit]")
    cpus: float | None = option(type=click.FloatRange(0.0), help="Cores of each Ray actor.  [default: 1]")
    gpus: float | None = option(type=click.FloatRange(0.0), help="GPUs of each Ray actor.  [default: 1, with cpu 0]")
    parts: int = option(type=click.IntRange(1), default=1, help="Into how many parts the shards are dealt.")
    part: int = option(
        type=click.IntRange(0), default=0, envvar=INDEX_VARIABLES, help="Which of them; else the index of the job."
    )
    overlap: int = option(type=click.IntRange(1, 16), default=2, help="Shards at once in a process.")

    def settings(self) -> WorkerSettings:
        """What a worker needs to know.

        Raises:
            OSError: The token cannot be read.
        """
        client: dict[str, Any] = {}
        if self.token_file is not None:
            client["token"] = self.token_file.read_text(encoding="utf-8").strip()
        if self.root_certificates is not None:
            client |= {"ssl": True, "root_certificates": str(self.root_certificates)}
        far = self.ray is not None  # its workers run in folders of their own
        return WorkerSettings(
            plan=_absolute(self.plan) if far else self.plan,
            out=_absolute(self.out) if far else self.out,
            repository=str(self.repository.absolute() if far else self.repository),
            threads=self.threads,
            servers=self.server,
            client=client,
            overlap=self.overlap,
            **given(self, "device", "in_flight", timeout="timeout_s"),
        )

    def make(self) -> Make:
        """How the shards are made.

        Raises:
            InvalidInputError: Two ways are asked for.
        """
        ways = [name for name in ("server", "processes", "ray") if getattr(self, name) not in (None, ())]
        if len(ways) > 1:
            raise InvalidInputError(f"--{ways[0]} and --{ways[1]}: give one of --server, --processes and --ray")
        for way, names in NEEDS.items():
            for name in given(self, *names) if way not in ways else ():
                raise InvalidInputError(f"--{name.replace('_', '-')}: needs --{way}")
        for name in given(self, *ENGINES) if self.server else ():
            raise InvalidInputError(f"--{name}: is for engines of this machine, not for those of --server")
        devices = devices_of(self.device or "cpu", self.processes)
        if self.ray is None:
            return in_this_process if len(devices) == 1 else in_processes(devices)
        if len(devices) > 1:
            raise InvalidInputError(f"--device {self.device}: with --ray give cuda, and the number with --workers")
        gpus = self.gpus if self.gpus is not None else float(self.device not in (None, "cpu"))
        return on_ray(RayOptions(address=self.ray, gpus=gpus, **given(self, "workers", "cpus")))


def _absolute(address: str) -> str:
    return address if "://" in address else os.path.abspath(address)
