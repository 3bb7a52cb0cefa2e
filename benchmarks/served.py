"""The cascade through the real Triton server and the real client."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import psutil

from contest import Timing
from id3pm.serving.server import TritonServer
from id3pm_client import Client, ClientError


class Served:
    """A Triton server of its own, and a client that has all images in flight at once. A context manager."""

    def __init__(self, repository: Path, images: int, steps: int) -> None:
        self._images, self._steps = images, steps
        before = set(psutil.Process().children(recursive=True))
        self._server = TritonServer(repository, http_port=0, grpc_port=0, metrics_port=0)
        self._server.__enter__()
        self._processes = set(psutil.Process().children(recursive=True)) - before
        self._client = Client(self._server.grpc_url)
        length = self._server.manifests["base"].unet.identity_dim
        assert length is not None
        self._vector = np.random.default_rng(0).standard_normal(length, dtype=np.float32)

    def turn(self) -> Timing:
        """All images at once, `steps` steps in both stages; as a worker's turn.

        Raises:
            RuntimeError: The server did not make them.
        """
        start = time.perf_counter()
        try:
            self._client.generate(self._vector, range(self._images), steps=self._steps, sr_steps=self._steps)
        except ClientError as error:
            raise RuntimeError(str(error)) from error
        return Timing(time.perf_counter() - start, math.nan)

    def peak_rss(self) -> int:
        """Bytes that the server's processes have in memory now, each process counted with what it shares."""
        return sum(process.memory_info().rss for process in self._processes if process.is_running())

    def close(self) -> None:
        """Stops the server."""
        self._client.close()
        self._server.__exit__(None, None, None)
