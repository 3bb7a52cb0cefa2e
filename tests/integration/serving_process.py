"""`id3pm serve` as a process of its own, for tests of what only a whole process has: limits, signals, its end."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from waiting import wait_until

from id3pm.serving.launcher.control import is_ready
from id3pm.serving.launcher.process import children

SERVE = [sys.executable, "-c", "from id3pm.cli import main; main()", "serve"]


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [entry.getsockname()[1] for entry in sockets]
    for entry in sockets:
        entry.close()
    return ports


def group_members(group: int) -> list[int]:
    """The processes of a process group that still run."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            members.append(int(stat.parent.name))
    return members


class Serving:
    """`id3pm serve` in a process of its own.

    Args:
        repository: The model repository.
        more: More options.
        descriptors: `ulimit -n` of the process, soft and hard.
        environment: More environment variables.
        within: A command that runs the rest of its arguments.
        at: Its ports of HTTP, gRPC and metrics; else free ones.
    """

    def __init__(
        self,
        repository: Path,
        *more: str,
        descriptors: int | None = None,
        environment: Mapping[str, str] | None = None,
        within: Sequence[str] = (),
        at: Sequence[int] | None = None,
    ) -> None:
        self.ports = tuple(free_ports(3) if at is None else at)
        self.http_port, self.grpc_port, self.metrics_port = self.ports
        ports = [f"--{name}-port={getattr(self, f'{name}_port')}" for name in ("http", "grpc", "metrics")]
        options = [f"--repository={repository}", "--threads=1", "--drain-timeout=20", *ports, *more]
        limit = [] if descriptors is None else ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh"]
        self.process = subprocess.Popen(
            [*within, *limit, *SERVE, *options],
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
        self.said = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        wait_until(lambda: "A face as a PNG" in self.said or self.process.poll() is not None, timeout_s=60)
        assert self.process.poll() is None, self.said

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr:
            for line in self.process.stderr:
                self.said += line

    def tritonserver(self) -> int:
        """Its child, which leads a process group of its own."""
        (child,) = children(self.process.pid)
        return child

    def ready(self) -> bool:
        return is_ready(f"127.0.0.1:{self.http_port}")

    def end(self) -> int:
        status = self.process.wait(timeout=60)
        self._reader.join(timeout=5)
        return status

    def kill(self) -> None:
        """Ends it and its server, if they still run."""
        for group in (*children(self.process.pid), self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        self.process.wait(timeout=10)

    def generate(self, answers: list[tuple[int, Any]], steps: int) -> threading.Thread:
        """Starts a request in a thread, which appends status and JSON of the answer."""

        def run() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=60)
            body = {"embedding": [0.1] * 128, "seed": 1, "steps": steps}
            try:
                connection.request("POST", "/v2/models/id3pm_png/generate", json.dumps(body))
                response = connection.getresponse()
                answers.append((response.status, json.loads(response.read())))
            except (OSError, http.client.HTTPException) as error:
                answers.append((0, {"error": repr(error)}))
            connection.close()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread
