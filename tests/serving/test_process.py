"""A server must not stay behind when its launcher is killed, whatever thread started it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from waiting import wait_until

from id3pm.serving.launcher import process as process_module
from id3pm.serving.launcher.process import children, end_orphans, runs, start_guarded

CONTAINER = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"]
SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
LAUNCHER = """
import os, sys, threading, time
from id3pm.serving.launcher.process import children
from id3pm.serving.launcher.process import runs
from id3pm.serving.launcher.process import end_orphans
from id3pm.serving.launcher.process import start_guarded
def start():
    process = start_guarded(sys.argv[1:], os.environ, grace_s=0.5)
    process.stdout.readline()
    print(process.pid, flush=True)
thread = threading.Thread(target=start)
thread.start()
thread.join()  # the thread that started the server has ended; the process lives on
time.sleep(60)
"""


@pytest.mark.parametrize("program", [SLEEPER, ["/bin/sh", "-c", "trap '' TERM; echo up; while :; do sleep 1; done"]])
def test_the_server_ends_when_its_launcher_is_killed(program: list[str]) -> None:
    """Also one that ignores SIGTERM, after the grace period."""
    with subprocess.Popen([sys.executable, "-c", LAUNCHER, *program], stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        server = int(launcher.stdout.readline())
        try:
            time.sleep(0.3)
            assert runs(server)
            launcher.kill()
            launcher.wait()
            wait_until(lambda: not runs(server), timeout_s=3.0)
        finally:
            if runs(server):
                os.killpg(server, signal.SIGKILL)


def test_exit_status_arguments_and_output_are_the_programs_own() -> None:
    program = [sys.executable, "-c", "import sys; print(sys.argv[1:], sys.stdin.read()); sys.exit(7)", "a b", "$HOME"]
    process = start_guarded(program, {**os.environ, "HOME": "nowhere"})
    assert process.stdout is not None and process.stdin is not None
    with process.stdout, process.stdin:
        assert process.stdout.read() == "['a b', '$HOME'] \n"
        assert process.wait(timeout=10) == 7
        os.killpg(process.pid, signal.SIGKILL)  # the guard


def test_an_orphan_is_a_server_whose_launcher_is_gone_and_no_other() -> None:
    alive = start_guarded(SLEEPER, os.environ)
    with subprocess.Popen([sys.executable, "-c", LAUNCHER, *SLEEPER], stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None and alive.stdin is not None and alive.stdout is not None
        orphan = int(launcher.stdout.readline())
        guards = [pid for pid, command in children(orphan).items() if "sh" in command[0]]
        try:
            assert not {orphan, alive.pid} & set(end_orphans())
            for pid in (*guards, launcher.pid):
                os.kill(pid, signal.SIGKILL)
            launcher.wait()
            assert runs(orphan)
            ended = end_orphans()
            assert orphan in ended and alive.pid not in ended
            wait_until(lambda: not runs(orphan), timeout_s=3.0)
            assert runs(alive.pid)
        finally:
            for group in (alive.pid, orphan):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGKILL)
            alive.wait(timeout=5)
            alive.stdin.close()
            alive.stdout.close()


def descendants(pid: int) -> list[int]:
    """All processes below one, as this process names them."""
    below = list(children(pid))
    return [*below, *(deeper for child in below for deeper in descendants(child))]


def test_a_server_of_a_container_is_not_judged_from_outside() -> None:
    """Inside, its launcher has another process id, which outside belongs to another process or to none."""
    try:
        subprocess.run([*CONTAINER, "true"], check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no PID namespace can be made here: {error}")
    command = [*CONTAINER, sys.executable, "-c", LAUNCHER, *SLEEPER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as container:
        assert container.stdout is not None
        try:
            inside = int(container.stdout.readline())
            below = descendants(container.pid)
            (server,) = (pid for pid in below if innermost(pid) == inside)
            assert runs(server)
            assert not {*below} & {*end_orphans()}
            time.sleep(0.2)
            assert runs(server)
        finally:
            container.kill()


def innermost(pid: int) -> int:
    """The process id in its own PID namespace."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[-1])


def test_a_server_whose_namespace_cannot_be_read_is_left_alone(tmp_path: Path) -> None:
    process = tmp_path / "7"
    (process / "ns").mkdir(parents=True)
    (process / "environ").write_bytes(b"ID3PM_LAUNCHER=999999999:1\0")
    assert not process_module._is_orphan(process)
    (process / "ns" / "pid").symlink_to(os.readlink("/proc/self/ns/pid"))
    assert process_module._is_orphan(process)
    (process / "ns" / "pid").unlink()
    (process / "ns" / "pid").symlink_to("pid:[1]")
    assert not process_module._is_orphan(process)
