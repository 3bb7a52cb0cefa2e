"""A Triton server on any model repository, for systems that we compare with."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType

from id3pm.serving.launcher.control import is_ready
from id3pm.serving.launcher.endpoints import check_ports
from id3pm.serving.launcher.process import start_guarded
from id3pm.serving.launcher.runtime import find_runtime
from id3pm.serving.launcher.shared_memory import regions_of, remove_regions

HOST = "127.0.0.1"
STOP_S = 30.0


class PlainTriton:
    """Starts on free ports, waits until it is ready, ends with the `with` block.

    Args:
        repository: Model repository.
        start_timeout_s: Seconds to become ready.
    """

    def __init__(self, repository: Path, start_timeout_s: float = 120.0) -> None:
        self._repository = repository
        self._start_timeout_s = start_timeout_s
        self._cleanup = contextlib.ExitStack()
        self._lines: list[str] = []

    def __enter__(self) -> PlainTriton:
        runtime = find_runtime()
        scratch = self._cleanup.enter_context(tempfile.TemporaryDirectory(prefix="id3pm-baseline-"))
        self.ports = check_ports(HOST, {"http-port": 0, "grpc-port": 0, "metrics-port": 0})
        command = [
            str(runtime.binary),
            f"--model-repository={self._repository}",
            *runtime.arguments(Path(scratch)),
            "--disable-auto-complete-config",
            "--allow-gpu-metrics=false",
            f"--exit-timeout-secs={int(STOP_S)}",
            *(f"--{name}-address={HOST}" for name in ("http", "grpc", "metrics")),
            *(f"--{option}={port}" for option, port in self.ports.items()),
        ]
        self._process = start_guarded(command, runtime.environment())
        self._cleanup.callback(self._end)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self._wait()
        except BaseException:
            self._cleanup.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.close()

    @property
    def grpc_url(self) -> str:
        """`host:port` of gRPC."""
        return f"{HOST}:{self.ports['grpc-port']}"

    @property
    def pid(self) -> int:
        """Process id of `tritonserver`."""
        return self._process.pid

    def _wait(self) -> None:
        deadline = time.monotonic() + self._start_timeout_s
        while not is_ready(f"{HOST}:{self.ports['http-port']}"):
            if self._process.poll() is not None or time.monotonic() > deadline:
                words = "\n".join(self._lines[-20:])
                raise RuntimeError(f"the server on {self._repository} did not become ready; its last lines:\n{words}")
            time.sleep(0.1)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.append(line.rstrip("\n"))

    def _end(self) -> None:
        regions = regions_of(self._process.pid)
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=10)
        self._reader.join(timeout=5)
        assert self._process.stdin is not None
        self._process.stdin.close()
        remove_regions(regions)
