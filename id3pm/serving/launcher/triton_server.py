"""Starts a Triton server on a model repository, waits until it is ready, and drains and ends it."""

from __future__ import annotations

import collections
import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from id3pm.engines.manifest import Manifest
from id3pm.errors import ServerError
from id3pm.serving.launcher.command_line import (
    SOCKET_PATH,
    addresses,
    command_of,
    socket_addresses,
    socket_of,
    takes_path,
)
from id3pm.serving.launcher.control import TIMEOUT_S, UNIX, AnswerTimeoutError, control, is_ready, refuses
from id3pm.serving.launcher.endpoints import Endpoints, check_ports
from id3pm.serving.launcher.preflight import check_engines, controlled, with_repository
from id3pm.serving.launcher.process import end_orphans, start_guarded
from id3pm.serving.launcher.runtime import TritonRuntime, find_runtime
from id3pm.serving.launcher.settings import ServerSettings
from id3pm.serving.launcher.shared_memory import regions_of, remove_regions, remove_stale_regions
from id3pm.serving.launcher.temp_folders import remove_stale_environments, remove_stale_folders, scratch_folder
from id3pm.serving.launcher.triton_log import Outlet, last_words
from id3pm.serving.models.model_args import COMPUTE_LOCK_VARIABLE, THREADS_VARIABLE
from id3pm.serving.protocol.limits import EXIT_S

_POLL_S = 0.1
WAYS_IN = ("http", "grpc", "metrics")
_LOG_LINES = 200
_LINE = 4096  # characters


class TritonServer(Endpoints):
    """One `tritonserver` process with its Python stubs, in a process group of its own, which ends with this process.

    Use it as a context manager (`with TritonServer("triton_repo") as server:`), or call `start`, `wait_ready`, `stop`.

    Args:
        repository: The model repository, with engines built into it.
        settings: Every machine that reaches its host can use the server.
        private: Listens on Unix sockets in a folder that only this user can enter, in place of host and ports.
    """

    def __init__(
        self, repository: str | Path, settings: ServerSettings | None = None, *, private: bool = False
    ) -> None:
        self.settings = ServerSettings() if settings is None else settings
        super().__init__(self.settings)
        self.repository = Path(repository).resolve()
        self.manifests: dict[str, Manifest] = {}
        self.controlled: tuple[str, ...] = ()
        self.runtime: TritonRuntime | None = None
        self._private = private
        self._sockets: Path | None = None
        self._models = self.repository
        self._folders: list[Path] = []
        self._on_log = None if self.settings.on_log is None else Outlet(self.settings.on_log)
        self._log: collections.deque[str] = collections.deque(maxlen=_LOG_LINES)
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._shared_memory: set[str] = set()
        self._cleanup = contextlib.ExitStack()

    @property
    def pid(self) -> int:
        """Process id of `tritonserver`, which is also its process group."""
        if self._process is None:
            raise ServerError("the server has not been started")
        return self._process.pid

    def _url(self, option: str) -> str:
        return super()._url(option) if self._sockets is None else UNIX + socket_of(self._sockets, option)

    def __enter__(self) -> TritonServer:
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Checks the environment and starts the process; returns before it is ready.

        Raises:
            ServerError: Something is missing on this machine, or a port is taken.
            EngineMissingError: An engine has not been built.
            EngineError: An engine is damaged, or the engines do not belong together.
            MissingExtraError: There is no Triton server.
        """
        if self._process is not None:
            raise ServerError("the server has been started already")
        self.runtime = find_runtime()
        self.manifests = check_engines(self.repository)
        self.controlled = controlled(self.repository)
        if not self._private:
            self.ports = check_ports(self.host, self.ports)
        end_orphans()
        remove_stale_regions()
        remove_stale_environments()
        scratch = self._folder()
        if not takes_path(scratch):
            scratch = self._folder(Path("/tmp"))
        self._models = scratch / "models"
        self._models.symlink_to(self.repository)  # Triton takes no spaces in its options, its Python no other letters
        if self._private:
            short = len(socket_of(scratch, "metrics-port").encode()) < SOCKET_PATH
            self._sockets = scratch if short else self._folder(Path("/tmp"))
        environment = self.runtime.environment()
        if self.settings.threads is not None:
            environment[THREADS_VARIABLE] = str(self.settings.threads)
        environment[COMPUTE_LOCK_VARIABLE] = str(scratch / "compute_lock")
        command = command_of(
            self.runtime,
            self._models,
            scratch,
            addresses(self.host, self.ports) if self._sockets is None else socket_addresses(self._sockets),
            self.settings.trace_url,
        )
        self._process = start_guarded(command, environment)
        self._reader = threading.Thread(target=self._read_log, args=(self._process,), name="triton-log", daemon=True)
        self._reader.start()

    def wait_ready(self, timeout_s: float | None = None) -> None:
        """Waits until Triton is ready and every stage's scheduler answers.

        Raises:
            ServerError: The server died; the message ends with its last log lines.
            AnswerTimeoutError: It was not ready in time.
        """
        timeout_s = self.settings.start_timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + timeout_s
        while not (is_ready(self.http_url) and self._stages_answer()):
            if self.poll() is not None:
                raise ServerError(f"the server died while starting (exit status {self.poll()}):\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise AnswerTimeoutError(f"the server was not ready within {timeout_s:g} s:\n{self.log_tail()}")
            time.sleep(_POLL_S)
        self._shared_memory = regions_of(self.pid)

    def ping(self, model: str, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        """The state of a stage's scheduler: active, waiting, in_flight, loop_age_ms, draining.

        Raises:
            ServerError: It does not answer.
        """
        return control(self.http_url, model, "ping", timeout_s=timeout_s)

    def refused(self, timeout_s: float = TIMEOUT_S) -> dict[str, str]:
        """The ports of `WAYS_IN` that accept no connection, and why: a socket may have been removed.

        Raises:
            ExhaustedError: There is no room for a connection.
        """
        found = {}
        for name in WAYS_IN:
            if (why := refuses(self._url(f"{name}-port"), timeout_s)) is not None:
                found[name] = why
        return found

    def poll(self) -> int | None:
        """The exit status of the server, or `None` while it runs."""
        return None if self._process is None else self._process.poll()

    def log_tail(self, lines: int = 20) -> str:
        """Why the server died, or its last lines; see `last_words`."""
        if self._reader is not None and self.poll() is not None:
            self._reader.join(timeout=5.0)
        return with_repository(last_words(list(self._log), lines), self.repository)

    def stop(self, drain_s: float | None = None) -> bool:
        """Lets work in flight finish, then ends the server; kills what is left when time is up.

        Args:
            drain_s: Seconds that work in flight gets, where it is not `drain_timeout_s`; `EXIT_S` come on top.

        Returns:
            Whether all work was done.
        """
        clean = self.poll() is None and self.drain(self.settings.drain_timeout_s if drain_s is None else drain_s)
        if self.poll() is None and self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout=EXIT_S)
            except subprocess.TimeoutExpired:
                pass  # it has nothing to do any more, so nothing is lost
        self.kill()
        return clean

    def drain(self, timeout_s: float) -> bool:
        """Makes the stages refuse new work, one after the other, and waits until all they had is answered.

        In the order of the pipeline: the output of one stage must still be accepted by the next.

        Returns:
            Whether everything was answered in time.
        """
        deadline = time.monotonic() + timeout_s
        try:
            done = True
            for model in self.controlled:
                done = self._wait_idle(model, deadline) and done  # requests from the stage before may be in transit
                control(self.http_url, model, "drain")
                done = self._wait_idle(model, deadline) and done
            return done
        except ServerError:  # not even ready yet, or dead: there is nothing to wait for
            return False

    def kill(self) -> None:
        """Ends the whole process group at once, and cleans up; safe to call at any time, and again where it raised.

        Raises:
            OSError: Something could not be removed; the processes have ended.
        """
        if self._process is not None:
            if self.poll() is None:
                self._shared_memory |= regions_of(self._process.pid)
            self.abort()
            self._process.wait(timeout=10.0)  # SIGKILL has been sent: longer means a hung kernel
            assert self._process.stdin is not None
            self._process.stdin.close()
        if self._reader is not None:
            self._reader.join(timeout=5.0)
        remove_regions(self._shared_memory)
        self._cleanup.close()
        for folder in self._folders:  # what could not be removed at the first time
            if folder.exists():
                shutil.rmtree(folder)

    def abort(self) -> None:
        """Sends SIGKILL to the process group and nothing more, which a signal handler may do."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):  # no process of the group is left
                os.killpg(self._process.pid, signal.SIGKILL)

    def _folder(self, parent: Path | None = None) -> Path:
        """A new folder; removed with the server."""
        remove_stale_folders(parent)
        folder = self._cleanup.enter_context(scratch_folder(parent))
        self._folders.append(folder)
        return folder

    def _read_log(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            while text := process.stdout.readline(_LINE):  # a longer line comes in pieces
                line = text.rstrip("\n")
                self._log.append(line)
                if self._on_log is not None:
                    self._on_log(line)

    def _stages_answer(self) -> bool:
        try:
            return all("active" in self.ping(model) for model in self.controlled)
        except ServerError:
            return False

    def _wait_idle(self, model: str, deadline: float) -> bool:
        """Whether a stage has answered everything; checked twice, because a result may be in transit between stages."""
        idle = 0
        while time.monotonic() < deadline:
            idle = idle + 1 if self.ping(model)["in_flight"] == 0 else 0
            if idle == 2:
                return True
            time.sleep(_POLL_S)
        return False
