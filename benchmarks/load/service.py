"""`id3pm serve` as a subprocess with ports, signals and a log, as an operator runs it."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from id3pm.serving.launcher.control import control, is_ready
from id3pm.serving.launcher.endpoints import check_ports

HOST = "127.0.0.1"
PORTS = ("http-port", "grpc-port", "metrics-port")
STUB = "triton_python_backend_stub"
SMALL_DISK = """\
mount -t tmpfs -o size=8m tmpfs "$TMPDIR" && exec "$@" >"$TMPDIR/log" 2>&1
"""


class ServiceProcess:
    """One `id3pm serve` on fixed free ports, so that it comes back where it was after a restart.

    Args:
        repository: Model repository.
        log: File for what it says.
        start_timeout_s: Seconds to become ready.
        small_disk: An empty folder on which it sees a file system of 8 MB of its own, with its log, access log and
            temporary files.
    """

    def __init__(
        self, repository: Path, log: Path, start_timeout_s: float = 120.0, small_disk: Path | None = None
    ) -> None:
        self._repository = repository
        self._log = log
        self._start_timeout_s = start_timeout_s
        self._small_disk = small_disk
        self.ports = check_ports(HOST, dict.fromkeys(PORTS, 0))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def grpc_url(self) -> str:
        """`host:port` of gRPC."""
        return f"{HOST}:{self.ports['grpc-port']}"

    @property
    def http_url(self) -> str:
        """`host:port` of HTTP."""
        return f"{HOST}:{self.ports['http-port']}"

    @property
    def pid(self) -> int:
        """Process id of `id3pm serve`, the ancestor of all its processes."""
        assert self._process is not None
        return self._process.pid

    def ping(self, model: str) -> dict[str, Any]:
        """What a stage's scheduler says of itself, asked through the gateway."""
        return control(self.http_url, model, "ping")

    def start(self) -> None:
        """Starts it and waits until it says that it is ready.

        Raises:
            RuntimeError: It died, or was not ready in time.
        """
        program = str(Path(sys.executable).with_name("id3pm"))
        command = [program, "serve", "--repository", str(self._repository)]
        command += [word for name, port in self.ports.items() for word in (f"--{name}", str(port))]
        environment = dict(os.environ)
        if self._small_disk is not None:
            environment["TMPDIR"] = str(self._small_disk)
            command += ["--access-log", str(self._small_disk / "access.log")]
            command = ["unshare", "-rm", "/bin/sh", "-c", SMALL_DISK, "sh", *command]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)
        deadline = time.monotonic() + self._start_timeout_s
        while not self.ready:
            if self._process.poll() is not None or time.monotonic() > deadline:
                words = self._log.read_text(errors="replace")[-1500:]
                self.kill()
                raise RuntimeError(f"id3pm serve did not become ready; its last words:\n{words}")
            time.sleep(0.1)

    @property
    def ready(self) -> bool:
        """Whether it says so."""
        return is_ready(self.http_url)

    def terminate(self, timeout_s: float = 90.0) -> int:
        """SIGTERM; the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout=timeout_s)

    def kill(self) -> None:
        """Ends whatever is left of it."""
        if self._process is None:
            return
        family = self.processes()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=10)
        self._process.wait(timeout=10)

    def processes(self) -> list[psutil.Process]:
        """It and all its descendants."""
        assert self._process is not None
        try:
            root = psutil.Process(self._process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def server(self) -> psutil.Process:
        """`tritonserver`.

        Raises:
            LookupError: There is none now.
        """
        return self._one(lambda process: process.name() == "tritonserver", "tritonserver")

    def stub(self, model: str) -> psutil.Process:
        """The Python process of a model.

        Raises:
            LookupError: There is none now.
        """

        def is_it(process: psutil.Process) -> bool:
            words = process.cmdline()
            return bool(words) and STUB in words[0] and any(f"/{model}/" in word for word in words)

        return self._one(is_it, f"stub of {model}")

    def fill_disk(self) -> None:
        """Fills the small disk to its last byte.

        Raises:
            OSError: It cannot be reached, or is not full afterwards.
        """
        assert self._small_disk is not None
        inside = Path(f"/proc/{self.server().pid}/root{self._small_disk}")
        with (inside / "filler").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"\0" * 4096)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
        if os.statvfs(inside).f_bavail:
            raise OSError(f"{self._small_disk} is not full")

    def _one(self, wanted: Callable[[psutil.Process], bool], name: str) -> psutil.Process:
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if wanted(process):
                    return process
        raise LookupError(f"there is no {name} now")
