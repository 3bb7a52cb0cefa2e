"""Starting, failing to start, draining, stopping and dying, each with a server of its own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from serving_process import SERVE, Serving, free_ports, group_members
from waiting import wait_until

from id3pm.errors import EngineError, EngineMissingError, ServerError
from id3pm.serving.launcher import temp_folders as scratch
from id3pm.serving.launcher.control import control, is_ready
from id3pm.serving.launcher.process import children
from id3pm.serving.launcher.settings import ServerSettings
from id3pm.serving.launcher.shared_memory import SHARED_MEMORY, regions_of
from id3pm.serving.launcher.triton_server import TritonServer

pytestmark = pytest.mark.server
PEOPLE = Path(__file__).parents[2] / "demo" / "people"
TOKEN = "photographs-only-1"


@pytest.fixture
def serving(repository: Path) -> Iterator[Serving]:
    running = Serving(repository)
    try:
        yield running
    finally:
        running.kill()


@pytest.fixture
def copied(repository: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(repository, tmp_path / "triton_repo"))


def test_sigterm_finishes_the_work_in_flight_and_refuses_new_work(serving: Serving) -> None:
    group = serving.tritonserver()
    answers: list[tuple[int, Any]] = []
    threads = [serving.generate(answers, steps=300) for _ in range(3)]
    wait_until(lambda: control(f"127.0.0.1:{serving.http_port}", "denoiser_64", "ping")["in_flight"] == 3)
    serving.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not serving.ready())
    late: list[tuple[int, Any]] = []
    serving.generate(late, steps=1).join(timeout=30)
    for thread in threads:
        thread.join(timeout=60)
    assert serving.end() == 0, serving.said
    assert [status for status, _ in answers] == [200, 200, 200]
    assert all(answer["png"] == answers[0][1]["png"] for _, answer in answers)
    assert late[0][0] == 503 and re.search(r"draining .*: retry after \d+ s", late[0][1]["error"])
    assert group_members(group) == []
    assert not is_ready(f"127.0.0.1:{serving.http_port}")


def test_one_stop_sent_twice_is_still_one_stop_and_a_later_one_hurries(serving: Serving) -> None:
    answers: list[tuple[int, Any]] = []
    threads = [serving.generate(answers, steps=1000) for _ in range(8)]
    wait_until(lambda: control(f"127.0.0.1:{serving.http_port}", "denoiser_64", "ping")["in_flight"] == 8)
    serving.process.send_signal(signal.SIGTERM)
    serving.process.send_signal(signal.SIGTERM)
    time.sleep(1.2)
    assert serving.process.poll() is None, "the work is still being finished"
    serving.process.send_signal(signal.SIGTERM)
    assert serving.end() == 1
    assert "a second signal came before all work was finished" in serving.said
    for thread in threads:
        thread.join(timeout=30)
    assert {status for status, _ in answers} & {0, 503}, "no caller learned that the work was not done"


def test_a_server_that_dies_is_replaced_and_one_whose_launcher_is_killed_goes_with_it(serving: Serving) -> None:
    first = serving.tritonserver()
    os.killpg(first, signal.SIGKILL)
    wait_until(lambda: "ready again after" in serving.said)
    assert "tritonserver died (exit status -9)" in serving.said
    group = serving.tritonserver()
    assert serving.ready() and group != first
    assert serving.process.poll() is None
    assert len(regions_of(group)) == 3, "one per Python model"
    serving.process.kill()
    wait_until(lambda: group_members(group) == [])


def test_a_server_that_cannot_be_started_again_ends_the_command_with_the_reason(copied: Path) -> None:
    serving = Serving(copied)
    try:
        (copied / "denoiser_64" / "1" / "engine" / "model.onnx").unlink()
        os.killpg(serving.tritonserver(), signal.SIGKILL)
        assert serving.end() == 1
        assert "start 5 of at most 5 failed: denoiser_64: " in serving.said
        assert "given up: tritonserver died (exit status -9); then 5 starts failed" in serving.said
    finally:
        serving.process.kill()
        serving.process.wait(timeout=10)


def orphan(repository: Path) -> tuple[int, list[str]]:
    """Process group and regions of a server whose launcher and guard were killed."""
    for _ in range(3):
        serving = Serving(repository)
        group, regions = serving.tritonserver(), regions_of(serving.tritonserver())
        (guard,) = (pid for pid in group_members(group) if "trap" in Path(f"/proc/{pid}/cmdline").read_text())
        os.kill(guard, signal.SIGKILL)
        serving.process.kill()
        serving.process.wait(timeout=10)
        time.sleep(0.5)
        if group in group_members(group):  # else a start in the other test process has ended it already
            return group, regions
    pytest.fail("the server ended with its launcher")


def test_an_orphaned_server_is_ended_by_the_next_start_and_no_shared_memory_stays(repository: Path) -> None:
    group, regions = orphan(repository)
    with TritonServer(repository, ServerSettings.on_free_ports(threads=1, start_timeout_s=60)) as server:
        assert server.pid != group
        wait_until(lambda: group_members(group) == [])
        assert regions and not any((SHARED_MEMORY / name).exists() for name in regions)
        regions = regions_of(server.pid)
        assert regions and all((SHARED_MEMORY / name).exists() for name in regions)
        assert server.pid in scratch._backends(), "else folders of running servers would be taken for left behind"
        server.kill()
    assert not any((SHARED_MEMORY / name).exists() for name in regions), "a killed server leaves none"


@pytest.fixture(params=["open", "tokens and TLS"])
def shown(request: pytest.FixtureRequest, repository: Path, tmp_path: Path) -> Iterator[tuple[Serving, str]]:
    """A service, and the command that it shows for a face."""
    options: list[str] = []
    if request.param != "open":
        key, certificate, tokens = (tmp_path / name for name in ("key.pem", "our certificate.pem", "tokens.toml"))
        tokens.write_text(f'[[caller]]\nname = "lab"\ntoken = "{TOKEN}"\nmay_send = ["photo"]\n')
        make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        make += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
        subprocess.run(make, check=True, capture_output=True, timeout=60)
        options = [f"--tls-certificate={certificate}", f"--tls-key={key}", f"--tokens={tokens}"]
    running = Serving(repository, *options)
    try:
        wait_until(lambda: running.said.endswith("b64decode(png))'\n"))
        yield running, running.said[running.said.index("(printf") :]
    finally:
        running.kill()


def test_the_command_that_serve_prints_makes_a_face_or_says_why_not(shown: tuple[Serving, str], tmp_path: Path) -> None:
    serving, command = shown
    for word in ("id3pm_photo", "bundle tiny", "onnx-cpu fp32", "sface, 128 numbers", f"127.0.0.1:{serving.http_port}"):
        assert word in serving.said
    face, photo = tmp_path / "face.png", tmp_path / "photo.jpg"

    def run(token: str = TOKEN) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "TOKEN": token}
        pasted = ["/bin/sh", "-c", command]
        return subprocess.run(
            pasted, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    shutil.copy(PEOPLE / "03.png", photo)
    made = run()
    assert made.returncode == 0 and made.stderr == "", made
    with Image.open(face) as image:
        assert image.format == "PNG" and image.size == (256, 256)
    good = face.read_bytes()
    if "$TOKEN" in command:
        refused = run(token="unknown-token")
        assert refused.returncode == 1 and "token" in refused.stderr and "Traceback" not in refused.stderr
    Image.new("RGB", (256, 256)).save(photo, "PNG")
    faceless = run()
    assert faceless.returncode == 1 and "no face" in faceless.stderr and faceless.stderr.count("\n") == 1, faceless
    serving.process.send_signal(signal.SIGINT)
    assert serving.end() == 0, serving.said
    gone = run()
    assert gone.returncode == 1 and gone.stderr.startswith("curl: (7)") and gone.stderr.count("\n") == 1, gone
    assert face.read_bytes() == good, "what had been made is kept"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_server_that_is_not_ready_yet(repository: Path, number: signal.Signals) -> None:
    """As whoever sends it expects: with the status of a program that the signal ended, and a word."""
    ports = [f"--{kind}-port={port}" for kind, port in zip(("http", "grpc", "metrics"), free_ports(3), strict=True)]
    command = [*SERVE, f"--repository={repository}", *ports]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        wait_until(lambda: any(regions_of(child) for child in children(process.pid)))
        (group,) = children(process.pid)
        process.send_signal(number)
        process.send_signal(number)  # as `timeout` does: it is still one stop, and the end is as orderly
        assert process.wait(timeout=20) == 128 + number
        wait_until(lambda: group_members(group) == [], timeout_s=2.0)
        assert process.stderr is not None
        assert process.stderr.read().strip() == f"{number.name} came while the engines were loading: stopped"


def test_a_port_in_use_is_named_with_the_option_that_changes_it(repository: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        http_port, metrics_port = free_ports(2)
        ports = [f"--http-port={http_port}", f"--grpc-port={port}", f"--metrics-port={metrics_port}"]
        ended = subprocess.run(
            [*SERVE, f"--repository={repository}", *ports], capture_output=True, text=True, timeout=60, check=False
        )
    assert ended.returncode == 1
    assert f"port {port} on 127.0.0.1 is in use: choose another with --grpc-port" in ended.stderr


@pytest.mark.parametrize("missing", ["model.onnx", "manifest.json"])
def test_a_missing_engine_says_how_to_build_it(copied: Path, missing: str) -> None:
    (copied / "super_resolution" / "1" / "engine" / missing).unlink()
    with pytest.raises(EngineMissingError, match=rf"^super_resolution: .*; run: id3pm build --repository {copied}$"):
        TritonServer(copied, ServerSettings.on_free_ports()).start()


def test_missing_face_models_say_how_to_build_them(copied: Path) -> None:
    shutil.rmtree(copied / "face_embedding" / "1" / "engine")
    with pytest.raises(EngineMissingError, match=rf"id3pm build-faces --repository {copied}$"):
        TritonServer(copied, ServerSettings.on_free_ports()).start()


def test_engines_of_two_bundles_are_refused(copied: Path) -> None:
    manifest = copied / "super_resolution" / "1" / "engine" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("1" * 64, "2" * 64))
    command = f"id3pm build --repository {copied}$"
    with pytest.raises(EngineError, match=f"are of different bundles; run: {command}"):
        TritonServer(copied, ServerSettings.on_free_ports()).start()


def test_a_damaged_engine_ends_the_start_with_the_reason(copied: Path) -> None:
    with (copied / "denoiser_64" / "1" / "engine" / "model.onnx").open("ab") as engine:
        engine.write(b"x")
    server = TritonServer(copied, ServerSettings.on_free_ports(threads=1, start_timeout_s=60))
    reason = rf"denoiser_64 cannot be loaded: .*damaged.* id3pm build --repository {copied}$"
    with pytest.raises(ServerError, match=rf"died while starting .*:\n{reason}"), server:
        pass
    assert server.poll() is not None


def test_a_folder_that_is_no_repository_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="--repository"):
        TritonServer(tmp_path).start()
