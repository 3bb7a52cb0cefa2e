"""Faults and their repair, with a stand-in for the server."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from id3pm.errors import ServerError
from id3pm.serving.launcher import health_check as health_check_module
from id3pm.serving.launcher import supervisor as supervisor_module
from id3pm.serving.launcher.control import AnswerTimeoutError, ExhaustedError, control, refuses
from id3pm.serving.launcher.health import Health
from id3pm.serving.launcher.health_check import HealthCheck, HealthCheckSettings
from id3pm.serving.launcher.supervisor import MAX_FAILED_STARTS, Supervisor
from id3pm.serving.protocol.liveness import hung_thread

IDLE: dict[str, Any] = {
    "active": 0,
    "waiting": 0,
    "paused": 0,
    "in_flight": 0,
    "loop_age_ms": 100,
    "step_ms": 50.0,
    "steps": 0,
    "answer_age_ms": 0,
    "draining": False,
}
QUICK = HealthCheckSettings(interval_s=0.02, backoff_s=0.01)


class MadeUpServer:
    """As much of a `TritonServer` as the supervisor uses."""

    http_url = grpc_url = metrics_url = "127.0.0.1:1"
    pid = 2**22 + 1  # no process has this id
    controlled = ("denoiser_64", "super_resolution", "face_embedding")

    def __init__(self, start_error: str | ServerError | None = None) -> None:
        self.closed: dict[str, str] = {}
        self.start_error = start_error
        self.state: dict[str, Any] | None = dict(IDLE)
        self.silent: set[str] = set()
        self.status: int | None = None
        self.calls: list[str] = []

    def start(self) -> None:
        self.calls.append("start")
        if self.start_error is not None:
            raise self.start_error if isinstance(self.start_error, ServerError) else ServerError(self.start_error)

    def wait_ready(self) -> None:
        self.calls.append("wait_ready")

    def ping(self, model: str, timeout_s: float) -> dict[str, Any]:
        if self.state is None or model in self.silent:
            raise ServerError("no answer")
        return self.state

    def refused(self, timeout_s: float) -> dict[str, str]:
        return dict(self.closed)

    def poll(self) -> int | None:
        return self.status

    def stop(self, drain_s: float | None = None) -> bool:
        self.calls.append("stop")
        return True

    def abort(self) -> None:
        self.status = -9

    def kill(self) -> None:
        self.calls.append("kill")
        self.status = -9

    def log_tail(self, lines: int = 20) -> str:
        return "last words"


def look(server: MadeUpServer, health_check_settings: HealthCheckSettings = QUICK) -> HealthCheck:
    return HealthCheck(server, health_check_settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("state", "hangs"),
    [
        ({"active": 1, "loop_age_ms": 3100, "step_ms": 10}, True),
        ({"active": 1, "loop_age_ms": 3100, "step_ms": 100}, False),
        ({"active": 1, "loop_age_ms": 3600, "step_ms": 100}, True),
        ({"active": 0, "loop_age_ms": 99_000, "step_ms": 10}, False),
        ({"active": 3, "loop_age_ms": 40_000}, False),
        ({"active": 3, "loop_age_ms": 60_000}, True),
    ],
)
def test_a_scheduler_hangs_after_three_seconds_and_five_of_its_steps(state: dict[str, Any], hangs: bool) -> None:
    found = hung_thread({"waiting": 0, "paused": 0, **state})
    assert (found is not None and found[0] == "the scheduler") == hangs


def test_a_stage_that_drains_on_foreign_orders_is_found() -> None:
    server = MadeUpServer()
    health_check = look(server)
    server.state = {**IDLE, "draining": True}
    assert health_check.fault() == "denoiser_64 takes no new requests, though this service did not tell it so"


@pytest.mark.parametrize("kind", ["waiting", "paused"])
def test_a_scheduler_that_died_idle_is_found_when_rows_wait_for_it(kind: str) -> None:
    server = MadeUpServer()
    health_check = look(server)
    server.state = {**IDLE, "loop_age_ms": 60_000}
    assert health_check.fault() is None
    server.state[kind] = 2
    assert health_check.fault() == (
        "the scheduler of denoiser_64 hangs: no sign of life for 60.0 s with 2 images at work or waiting"
    )


def test_images_that_nobody_sends_are_a_fault() -> None:
    server = MadeUpServer()
    health_check = look(server)
    server.state = {**IDLE, "answer_age_ms": 3000}
    assert health_check.fault() is None
    server.state["answer_age_ms"] = 3300
    assert health_check.fault() == (
        "the answering thread of denoiser_64 hangs: an image has been waiting for 3.3 s to be sent"
    )


def test_the_face_stage_is_asked_too_and_each_model_has_its_own_two_chances() -> None:
    server = MadeUpServer()
    health_check = look(server)
    server.silent = {"super_resolution"}
    assert health_check.fault() is None
    server.silent = {"face_embedding"}
    assert health_check.fault() is None, "one failed ping of each"
    assert health_check.fault() == "face_embedding failed two pings: no answer"


def test_one_failed_ping_is_no_fault_two_are() -> None:
    server = MadeUpServer()
    health_check = look(server)
    server.state = None
    assert health_check.fault() is None
    server.state = dict(IDLE)
    assert health_check.fault() is None
    server.state = None
    assert health_check.fault() is None
    assert health_check.fault() == "denoiser_64 failed two pings: no answer"


@pytest.mark.parametrize("way", ["grpc", "metrics"])
def test_a_way_in_that_is_closed_at_two_looks_is_a_fault(way: str) -> None:
    server = MadeUpServer()
    health_check = look(server)
    for closed in ({way: "no such file"}, {}, {way: "no such file"}):
        server.closed = closed
        assert health_check.fault() is None
    assert health_check.fault() == f"tritonserver takes no {way} connections: no such file"
    health_check.close()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_no_room_for_another_file_is_no_fault_of_the_server(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The process table, a ping and a connection all need one."""
    server = MadeUpServer()
    health_check = look(server)

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(number, "too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(MadeUpServer, "refused", full)
        assert [health_check.fault() for _ in range(4)] == [None] * 4
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", full)
        health_check._stubs = {os.getpid(): "a model"}
        assert [health_check.fault() for _ in range(4)] == [None] * 4
    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "connect", full)
        with pytest.raises(ExhaustedError):
            control("127.0.0.1:1", "denoiser_64", "ping")
        with pytest.raises(ExhaustedError):
            refuses("127.0.0.1:1")
    health_check.close()


def test_an_address_says_why_it_takes_no_connections(tmp_path: Path) -> None:
    assert "No such file" in str(refuses(f"unix:{tmp_path}/gone"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert refuses(f"127.0.0.1:{listening.getsockname()[1]}") is None


def test_a_dead_server_and_a_dead_stub_are_faults_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    server = MadeUpServer()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stub:
        monkeypatch.setattr(health_check_module, "stubs", lambda pid: {stub.pid: "denoiser_64"})
        health_check = look(server)
        assert health_check.fault() is None
        stub.kill()
        deadline = time.monotonic() + 5
        while (fault := health_check.fault()) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert fault == f"the Python process of denoiser_64 died (process {stub.pid})", "a zombie is dead"
    server.status = 1
    assert health_check.fault() == "tritonserver died (exit status 1)"


class Probes:
    """In place of the probe: what it raises, and how often it was sent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: ServerError | None = None
        self.sent = 0
        monkeypatch.setattr(health_check_module, "probe", self._probe)

    def _probe(self, server: Any, timeout_s: float) -> None:
        self.sent += 1
        time.sleep(0.05)
        if self.error is not None:
            raise self.error


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> Probes:
    return Probes(monkeypatch)


def looks(
    health_check: HealthCheck, until: Callable[[], bool], between: Callable[[], None] = lambda: None
) -> str | None:
    """Looks until something is true or wrong, and says what is wrong."""
    deadline = time.monotonic() + 10
    while (fault := health_check.fault()) is None and not until():
        assert time.monotonic() < deadline
        between()
        time.sleep(0.01)
    return fault


@pytest.mark.parametrize("failing", [False, True])
def test_an_idle_server_is_probed_and_a_busy_one_is_not_at_that_pace(probes: Probes, failing: bool) -> None:
    probes.error = ServerError("id3pm answered nonsense") if failing else None
    server = MadeUpServer()
    health_check = look(server, HealthCheckSettings(probe_every_s=0.1))
    server.state = {**IDLE, "active": 1}
    for _ in range(10):
        assert health_check.fault() is None
        time.sleep(0.02)
    assert not probes.sent
    server.state = dict(IDLE)
    fault = looks(health_check, lambda: probes.sent == 2)
    assert fault == ("the probe failed: id3pm answered nonsense" if failing else None)


def test_a_busy_server_is_probed_now_and_then(probes: Probes) -> None:
    server = MadeUpServer()
    server.state = {**IDLE, "active": 1}
    health_check = look(server, HealthCheckSettings(busy_probe_every_s=0.2))
    assert health_check.fault() is None and not probes.sent
    assert looks(health_check, lambda: probes.sent == 2) is None
    probes.error = ServerError("id3pm answered nonsense")
    assert looks(health_check, lambda: False) == "the probe failed: id3pm answered nonsense"


@pytest.mark.parametrize("progress", [False, True])
def test_a_probe_that_must_wait_for_others_is_no_fault_while_they_make_steps(probes: Probes, progress: bool) -> None:
    probes.error = AnswerTimeoutError("id3pm gave no answer within 30 s")
    server = MadeUpServer()
    server.state = {**IDLE, "active": 1}

    def step() -> None:
        assert server.state is not None
        server.state["steps"] += progress

    health_check = look(server, HealthCheckSettings(busy_probe_every_s=0.1))
    fault = looks(health_check, lambda: probes.sent == 3, step)
    assert fault == (None if progress else "the probe failed: id3pm gave no answer within 30 s")


def test_no_answer_in_time_is_told_from_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        server = types.SimpleNamespace(
            http_url=f"127.0.0.1:{deaf.getsockname()[1]}",
            manifests={"base": types.SimpleNamespace(unet=types.SimpleNamespace(identity_dim=4))},
        )
        with pytest.raises(AnswerTimeoutError, match=r"id3pm: no answer from the server on .* within 0\.2 s"):
            health_check_module.probe(server, 0.2)  # type: ignore[arg-type]
    with pytest.raises(ServerError, match="refused") as caught:
        health_check_module.probe(server, 0.2)  # type: ignore[arg-type]
    assert not isinstance(caught.value, AnswerTimeoutError)


class Stage:
    """A supervisor with made-up servers; the first one starts, or fails as told, and so do the others."""

    def __init__(self, errors: list[str | None], first: ServerError | None = None) -> None:
        self.made: list[MadeUpServer] = []
        self.said: list[str] = []
        self.health = Health()
        self._errors = iter([first, *errors])
        self.supervisor = Supervisor(self._make, self.health, self.said.append, QUICK)  # type: ignore[arg-type]
        self.supervisor.start()

    def _make(self) -> MadeUpServer:
        self.made.append(MadeUpServer(next(self._errors)))
        return self.made[-1]

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, self.said
            time.sleep(0.01)


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[list[str | None]], Stage]]:
    monkeypatch.setattr(supervisor_module, "probe", lambda server, timeout_s: None)
    stages = []

    def make(errors: list[str | None]) -> Stage:
        stages.append(Stage(errors))
        return stages[-1]

    yield make
    for stage in stages:
        stage.supervisor.kill()


def test_a_first_server_that_hangs_is_replaced_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "probe", lambda server, timeout_s: None)
    hangs = AnswerTimeoutError("the server was not ready within 60 s")
    stage = Stage([None], hangs)
    assert stage.health.ready and len(stage.made) == 2
    assert stage.made[0].calls == ["start", "kill"] and "not ready within 60 s" in stage.said[0]
    stage.supervisor.kill()
    with pytest.raises(ServerError, match="a port is taken"):
        Stage(["a port is taken"], hangs)
    with pytest.raises(ServerError, match="died while starting"):
        Stage([], ServerError("the server died while starting"))


def test_a_faulty_server_is_killed_and_replaced(play: Callable[[list[str | None]], Stage]) -> None:
    stage = play([None])
    assert stage.health.ready
    stage.made[0].status = 139
    stage.wait_until(lambda: len(stage.made) == 2 and stage.health.ready)
    assert stage.made[0].calls[-1] == "kill"
    stage.wait_until(lambda: len(stage.said) == 3)
    assert stage.said[:2] == ["tritonserver died (exit status 139)", "its last lines:\nlast words"]
    assert stage.said[2].startswith("ready again after")
    assert stage.health.restarts == 1


def test_a_start_that_fails_is_tried_again(play: Callable[[list[str | None]], Stage]) -> None:
    stage = play(["no memory", "no memory", None])
    stage.made[0].state = None
    stage.wait_until(lambda: len(stage.made) == 4 and stage.health.ready)
    assert stage.said[1] == f"start 1 of at most {MAX_FAILED_STARTS} failed: no memory"
    assert stage.supervisor.failure is None


def test_after_five_failed_starts_it_gives_up_and_says_why(play: Callable[[list[str | None]], Stage]) -> None:
    stage = play(["no memory"] * MAX_FAILED_STARTS)
    stage.made[0].state = None
    assert stage.supervisor.ended.wait(10)
    assert stage.supervisor.failure == (
        "denoiser_64 failed two pings: no answer; then 5 starts failed, the last one so: no memory"
    )
    assert len(stage.made) == 1 + MAX_FAILED_STARTS
    assert not stage.health.ready
    assert not stage.supervisor.stop()


def test_while_draining_nothing_is_restarted(play: Callable[[list[str | None]], Stage]) -> None:
    stage = play([])
    stage.health.drains()
    stage.made[0].status = 1
    assert stage.supervisor.ended.wait(10)
    assert len(stage.made) == 1
    assert not stage.supervisor.stop(), "work may have been lost"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("closed file"), SystemExit(1)])
def test_a_report_that_cannot_be_written_stops_no_repair(
    play: Callable[[list[str | None]], Stage], error: BaseException
) -> None:
    def unwritable(line: str) -> None:
        raise error

    stage = play(["no memory", None])
    stage.supervisor._report._write = unwritable
    stage.made[0].status = 1
    stage.wait_until(lambda: len(stage.made) == 3 and stage.health.ready)
    stage.wait_until(lambda: stage.health.dropped_lines == 4)
    assert stage.supervisor.failure is None and not stage.supervisor.ended.is_set()
    assert stage.made[0].calls[-1] == "kill"
