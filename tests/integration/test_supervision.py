"""A Triton that dies or hangs is replaced within seconds, and callers who ask again get the same image."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from services import running
from waiting import wait_until

from id3pm.serving.launcher.control import control
from id3pm.serving.launcher.health import Phase
from id3pm.serving.launcher.health_check import HealthCheckSettings, stubs
from id3pm.serving.launcher.process import runs
from id3pm.serving.launcher.shared_memory import SHARED_MEMORY, regions_of
from id3pm.serving.service import Service

pytestmark = pytest.mark.server
DETECTED_S = 5.0
HOST = "127.0.0.1"
START_S = 30.0


@pytest.fixture(scope="module")
def said() -> list[str]:
    """What the service reported."""
    return []


@pytest.fixture(scope="module")
def service(repository: Path, said: list[str]) -> Iterator[Service]:
    with running(repository, report=said.append) as service:
        yield service


@pytest.fixture(autouse=True)
def ready_again(service: Service) -> Iterator[None]:
    yield
    wait_until(lambda: service.health.ready, START_S)


def http_(service: Service, path: str, body: Any = None) -> tuple[int, dict[str, str], Any]:
    connection = http.client.HTTPConnection(service.http_url, timeout=60)
    connection.request("GET" if body is None else "POST", path, None if body is None else json.dumps(body))
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, dict(response.headers), json.loads(content) if content else None


def ask(service: Service, steps: int, request_id: str) -> tuple[int, dict[str, str], Any]:
    body = {"id": request_id, "embedding": [0.1] * 128, "seed": 1, "steps": steps}
    return http_(service, "/v2/models/id3pm_png/generate", body)


def pid_of(service: Service, model: str) -> int:
    (pid,) = (pid for pid, name in stubs(service.server.pid).items() if name == model)
    return pid


def hurt(service: Service, pid: int, number: signal.Signals) -> float:
    """Sends a signal; seconds until the service knows that it is not well."""
    os.kill(pid, number)
    return wait_until(lambda: http_(service, "/v2/health/ready")[0] == 503, DETECTED_S)


def test_all_python_processes_are_watched(service: Service) -> None:
    assert sorted(stubs(service.server.pid).values()) == ["denoiser_64", "face_embedding", "super_resolution"]


def test_a_start_leaves_no_bytecode_that_a_full_disk_would_cut_short(service: Service) -> None:
    folder = Path(service.server.http_url.removeprefix("unix:")).parent
    assert list(folder.rglob("triton_python_backend_utils.py"))
    assert not list(folder.rglob("*.pyc"))


def test_a_killed_stub_is_replaced_and_the_same_request_gives_the_same_image(service: Service, said: list[str]) -> None:
    image = ask(service, 5, "before")[2]["png"]
    group, regions = service.server.pid, regions_of(service.server.pid)
    assert hurt(service, pid_of(service, "super_resolution"), signal.SIGKILL) < 2.0
    assert http_(service, "/v2/health/live")[0] == 200
    status, headers, answer = ask(service, 5, "meanwhile")
    assert (status, answer["error"]) == (503, f"the server is being restarted: retry after {headers['Retry-After']} s")
    wait_until(lambda: service.health.ready, START_S)
    assert ask(service, 5, "before")[2]["png"] == image
    assert not runs(group) and service.server.pid != group
    assert regions and not any((SHARED_MEMORY / name).exists() for name in regions)
    assert any(line.startswith("the Python process of super_resolution died") for line in said)


@pytest.mark.parametrize("victim", ["denoiser_64", "tritonserver"])
def test_a_request_that_was_in_flight_can_be_sent_again_under_its_id(service: Service, victim: str) -> None:
    """Without help it would hang: Triton does not report a dead stub."""
    image = ask(service, 500, "alone")[2]["png"]
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(ask(service, 500, f"mine-{victim}")), daemon=True)
    thread.start()
    wait_until(lambda: service.server.ping("denoiser_64")["active"] == 1, 10)
    os.kill(service.server.pid if victim == "tritonserver" else pid_of(service, victim), signal.SIGKILL)
    thread.join(timeout=DETECTED_S)
    assert not thread.is_alive() and answers[0][0] == 503 and "Retry-After" in answers[0][1], answers
    deadline = time.monotonic() + START_S
    while (again := ask(service, 500, f"mine-{victim}"))[0] == 503:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert again[2]["png"] == image


@pytest.mark.parametrize("victim", ["denoiser_64", "tritonserver"])
def test_what_hangs_is_replaced(service: Service, victim: str) -> None:
    restarts = service.health.restarts
    hurt(service, service.server.pid if victim == "tritonserver" else pid_of(service, victim), signal.SIGSTOP)
    wait_until(lambda: service.health.ready, START_S)
    assert service.health.restarts == restarts + 1
    assert ask(service, 5, "after")[0] == 200


def test_a_face_stage_that_hangs_is_replaced_under_load_too(service: Service) -> None:
    """Requests with vectors do not need it, so they never show its absence."""
    restarts, stop = service.health.restarts, threading.Event()

    def load() -> None:
        while not stop.is_set():
            ask(service, 200, "")

    threads = [threading.Thread(target=load, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: service.server.ping("denoiser_64")["active"] > 0, 10)
        hurt(service, pid_of(service, "face_embedding"), signal.SIGSTOP)
    finally:
        stop.set()
    wait_until(lambda: service.health.ready, START_S)
    for thread in threads:
        thread.join(timeout=60)
    assert service.health.restarts == restarts + 1


def test_a_flood_of_questions_for_progress_is_no_reason_to_restart(service: Service, said: list[str]) -> None:
    """Each answer to it is sixteen pictures to encode."""
    told, stop, rows = list(said), threading.Event(), 16
    pixels = [[[[0] * 3] * 64] * 64] * rows
    inputs = [
        {"name": "image_64", "shape": [rows, 64, 64, 3], "datatype": "UINT8", "data": pixels},
        {"name": "seed", "shape": [rows, 1], "datatype": "INT64", "data": list(range(rows))},
    ]
    body = {"id": "watched", "inputs": inputs, "parameters": {"sr_steps": 1000}, "outputs": [{"name": "receipt"}]}
    work = threading.Thread(
        target=http_, args=(service, "/v2/models/super_resolution/infer", body), name="work", daemon=True
    )
    work.start()
    wait_until(lambda: service.server.ping("super_resolution")["active"] > 0, 20)
    found: list[bool] = []

    def poll() -> None:
        while not stop.is_set():
            state = control(service.server.http_url, "super_resolution", "progress", "watched", timeout_s=60)
            found.append(state["found"])

    pollers = [threading.Thread(target=poll, daemon=True) for _ in range(10)]
    for poller in pollers:
        poller.start()
    waits = []
    end = time.monotonic() + 6.0
    while time.monotonic() < end:
        began = time.monotonic()
        service.server.ping("super_resolution", timeout_s=30.0)
        waits.append(time.monotonic() - began)
    stop.set()
    control(service.server.http_url, "super_resolution", "cancel", "watched")
    for thread in (*pollers, work):
        thread.join(timeout=60)
    assert any(found) and said == told
    assert sorted(waits)[len(waits) * 9 // 10] < 0.5, sorted(waits)[-20:]


def test_a_busy_service_is_left_alone(service: Service, said: list[str]) -> None:
    told = list(said)
    threads = [threading.Thread(target=ask, args=(service, 500, f"busy-{n}"), daemon=True) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert said == told


def test_an_idle_service_is_probed(repository: Path) -> None:
    said: list[str] = []
    settings = HealthCheckSettings(interval_s=0.1, probe_every_s=0.3)
    with running(repository, health_check=settings, report=said.append) as probed:
        images = 'id3pm_images_total{model="super_resolution"} '

        def made() -> float:
            connection = http.client.HTTPConnection(probed.metrics_url, timeout=10)
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
            connection.close()
            return float(text.partition(images)[2].splitlines()[0])

        wait_until(lambda: made() >= 3, 10)
        assert said == [], "probes of a healthy server find nothing"
        assert probed.health.phase is Phase.SERVING
