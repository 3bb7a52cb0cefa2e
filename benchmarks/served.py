"""The cascade through the real Triton server and the real client."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import psutil

from contest import Turn, digest, identities
from id3pm.serving.launcher.preflight import check_engines
from id3pm.serving.launcher.settings import ServerSettings
from id3pm.serving.launcher.triton_server import TritonServer
from id3pm_client import Client, ClientError
from id3pm_client._connection import Connection
from load import memory
from load.service import ServiceProcess
from load.stagewise import Stagewise
from machine import processor_s


class Served:
    """A server of its own, and a client that has all images in flight at once.

    Args:
        repository: Models and built engines.
        images: How many at once.
        steps: Of both stages.
        log: Where `id3pm serve` writes its log; `None` for Triton alone, without a gateway.
        sr_steps: Of super-resolution, where that has another number.
        stagewise: The client calls one stage after the other, in place of the ensemble.
    """

    def __init__(
        self,
        repository: Path,
        images: int,
        steps: int,
        log: Path | None = None,
        sr_steps: int | None = None,
        stagewise: bool = False,
    ) -> None:
        self._images, self._steps, self._sr_steps = images, steps, sr_steps or steps
        self._cleanup = contextlib.ExitStack()
        before = set(psutil.Process().children(recursive=True))
        server: TritonServer | ServiceProcess
        if log is None:
            server = self._cleanup.enter_context(TritonServer(repository, ServerSettings.on_free_ports()))
        else:
            server = ServiceProcess(repository, log)
            self._cleanup.callback(server.kill)
            server.start()
            self._cleanup.callback(server.terminate)
        self._processes = set(psutil.Process().children(recursive=True)) - before
        url = server.grpc_url
        transport = Stagewise(Connection(url)) if stagewise else None
        self._client = self._cleanup.enter_context(Client(url, transport=transport))
        self._vector = identities(check_engines(repository)["base"].unet, 1)[0]

    def turn(self) -> Turn:
        """All images at once; as a worker's turn.

        Raises:
            RuntimeError: The server did not make them.
        """
        start, spent, client_s = time.perf_counter(), self._processor_s(), time.process_time()
        try:
            made = self._client.generate(self._vector, range(self._images), steps=self._steps, sr_steps=self._sr_steps)
        except ClientError as error:
            raise RuntimeError(str(error)) from error
        images = [image.image for image in made]
        seconds, client_s = time.perf_counter() - start, time.process_time() - client_s
        now = self._processor_s()
        return Turn(seconds, {name: now[name] - before for name, before in spent.items()}, client_s, digest(images))

    def _processor_s(self) -> dict[str, float]:
        """Processor seconds so far of the server's processes, by model or program.

        Raises:
            RuntimeError: One of them has ended.
        """
        found: dict[str, float] = {}
        try:
            for process in self._processes:
                name = memory.label(process).partition(" (")[0]
                found[name] = found.get(name, 0.0) + processor_s(process.pid)
        except (psutil.Error, OSError) as error:
            raise RuntimeError(f"a process of the server has ended: {error}") from error
        return found

    def peak_rss(self) -> int:
        """Bytes that the server's processes have in memory now, each process counted with what it shares."""
        return sum(process.memory_info().rss for process in self._processes if process.is_running())

    def close(self) -> None:
        """Stops the server."""
        self._cleanup.close()
