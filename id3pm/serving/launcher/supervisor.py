"""The supervisor: checks the Triton server every second, replaces it, and gives up after repeated failures."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from id3pm.errors import Id3pmError, ServerError
from id3pm.serving.launcher.control import AnswerTimeoutError
from id3pm.serving.launcher.health import Addresses, Health, Phase
from id3pm.serving.launcher.health_check import HealthCheck, HealthCheckSettings, probe
from id3pm.serving.launcher.triton_log import Outlet
from id3pm.serving.launcher.triton_server import TritonServer
from id3pm.serving.protocol.limits import MAX_FAILED_STARTS

_JOIN_S = 5.0  # a check takes less, unless it hangs; then it ends with this process


class Supervisor:
    """One Triton process at a time, with its supervising thread.

    Args:
        make: A new, unstarted server.
        health: Health for the gateway.
        report: Gets a line of text about every fault and repair; called from the thread, which survives exceptions in
            it.
        settings: Intervals and limits.
    """

    def __init__(
        self,
        make: Callable[[], TritonServer],
        health: Health,
        report: Callable[[str], None],
        settings: HealthCheckSettings,
    ) -> None:
        self.server = make()
        self.ended = threading.Event()
        self.failure: str | None = None
        self._make = make
        self._health = health
        self._report = Outlet(report, health.drops_line)
        self._settings = settings
        self._stopping = threading.Event()
        self._aborted = False
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def start(self) -> None:
        """Starts the first server, and returns when it is ready and has made an image.

        A server that dies while it starts will die again. One that hangs is replaced once: Triton's Python backend
        now and then does not return from the loading of a model.

        Raises:
            Id3pmError: It cannot be started; nothing is left running.
        """
        try:
            self._start_server()
        except AnswerTimeoutError as error:
            self._report(f"the first start failed, another one follows: {error}")
            self.server = self._make()
            self._start_server()
        self._thread.start()

    def stop(self, drain_s: float | None = None) -> bool:
        """Ends supervision and then the server, which finishes its work first.

        Args:
            drain_s: See `TritonServer.stop`.

        Returns:
            Whether all work was finished.
        """
        restarting = self._health.addresses is None  # so its callers know that their work was lost
        self._end_thread()
        if self._aborted or self.failure is not None:
            return False
        return restarting or self.server.stop(drain_s)

    def kill(self) -> None:
        """Ends supervision and the server at once."""
        self._stopping.set()
        self.server.abort()
        self._end_thread()
        self._clean_up()

    def abort(self) -> None:
        """Sends SIGKILL to the server and nothing more, which a signal handler may do."""
        self._aborted = True
        self.server.abort()

    def _clean_up(self) -> None:
        """Kills the server; files that cannot be removed are reported, and removed at the end."""
        try:
            self.server.kill()
        except OSError as error:
            self._report(f"something of the old server could not be removed: {error}")

    def _end_thread(self) -> None:
        self._stopping.set()
        self._health.suspicion.set()
        if self._thread.is_alive():
            if self._health.addresses is None:  # a start is under way, which is not needed any more
                self.server.abort()
            self._thread.join(timeout=_JOIN_S)

    def _run(self) -> None:
        health_check = HealthCheck(self.server, self._settings)
        try:
            while not self._stopping.is_set():
                self._health.suspicion.wait(self._settings.interval_s)
                self._health.suspicion.clear()
                if self._stopping.is_set() or (fault := health_check.fault()) is None:
                    continue
                health_check.close()
                self._health.breaks()
                died = self.server.poll() is not None
                self._clean_up()  # first: a report may block
                self._report(fault)
                if died:
                    self._report(f"its last lines:\n{self.server.log_tail(5)}")
                if self._health.phase is Phase.DRAINING or not self._replace(fault):
                    self.failure = self.failure or fault
                    return
                health_check = HealthCheck(self.server, self._settings)
        except BaseException as error:  # a service must not run without supervision
            self.failure = f"supervision failed: {type(error).__name__}: {error}"
            raise
        finally:
            health_check.close()
            self.ended.set()

    def _replace(self, fault: str) -> bool:
        """Starts servers until one is ready; false if it gives up, or must stop."""
        for attempt in range(MAX_FAILED_STARTS):
            if self._stopping.wait(self._settings.backoff_s * 2.0 ** (attempt - 1) if attempt else 0.0):
                return False
            began = time.monotonic()
            self._health.restarts += 1
            self.server = self._make()
            try:
                self._start_server()
            except (Id3pmError, OSError) as error:
                if self._stopping.is_set():
                    return False
                self._report(f"start {attempt + 1} of at most {MAX_FAILED_STARTS} failed: {error}")
                self.failure = f"{fault}; then {MAX_FAILED_STARTS} starts failed, the last one so: {error}"
                continue
            self.failure = None
            self._report(f"ready again after {time.monotonic() - began:.1f} s")
            return True
        return False

    def _start_server(self) -> None:
        self._health.starts()
        server = self.server
        try:
            server.start()
            server.wait_ready()
            probe(server, self._settings.start_probe_s)
        except BaseException:
            with contextlib.suppress(ServerError, OSError):
                server.kill()
            raise
        self._health.serves(Addresses(server.http_url, server.grpc_url, server.metrics_url))
