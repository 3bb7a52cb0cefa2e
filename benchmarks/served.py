"""The cascade through the real Triton server and the real client."""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path

import numpy as np
import psutil

from contest import Timing
from id3pm.serving.launcher.preflight import check_engines
from id3pm.serving.launcher.settings import ServerSettings
from id3pm.serving.launcher.triton_server import TritonServer
from id3pm_client import Client, ClientError
from load.service import ServiceProcess


class Served:
    """A server of its own, and a client that has all images in flight at once.

    Args:
        repository: Models and built engines.
        images: How many at once.
        steps: Of both stages.
        log: Where `id3pm serve` writes its log; `None` for Triton alone, without a gateway.
        sr_steps: Of super-resolution, where that has another number.
    """

    def __init__(
        self, repository: Path, images: int, steps: int, log: Path | None = None, sr_steps: int | None = None
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
        self._client = self._cleanup.enter_context(Client(server.grpc_url))
        length = check_engines(repository)["base"].unet.identity_dim
        assert length is not None
        vector = np.random.default_rng(0).standard_normal(length, dtype=np.float32)
        self._vector = vector / np.linalg.norm(vector)

    def turn(self) -> Timing:
        """All images at once; as a worker's turn.

        Raises:
            RuntimeError: The server did not make them.
        """
        start = time.perf_counter()
        try:
            self._client.generate(self._vector, range(self._images), steps=self._steps, sr_steps=self._sr_steps)
        except ClientError as error:
            raise RuntimeError(str(error)) from error
        return Timing(time.perf_counter() - start, math.nan)

    def peak_rss(self) -> int:
        """Bytes that the server's processes have in memory now, each process counted with what it shares."""
        return sum(process.memory_info().rss for process in self._processes if process.is_running())

    def close(self) -> None:
        """Stops the server."""
        self._cleanup.close()
