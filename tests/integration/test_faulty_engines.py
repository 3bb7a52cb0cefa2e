"""An engine that hangs or fails, in the real server: found by the scheduler's age and by the probe, and repaired."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from services import service_on
from waiting import wait_until

from id3pm.serving.launcher.health_check import HealthCheckSettings

pytestmark = pytest.mark.server
# Appended to the 64 px stage's model.py: while a file lies beside it, every engine call does what the file says.
FAULT = """

import os, time
from id3pm.sampling.batch import RowBatch
_run = RowBatch._evaluate
def run(self, inputs):
    fault = open(FILE).read() if os.path.exists(FILE) else ""
    if fault == "hang":
        time.sleep(60)
    if fault == "fail":
        raise ValueError("made to fail")
    return _run(self, inputs)
RowBatch._evaluate = run
"""
# A thread that ends, as by an unexpected error: the scheduler's while idle, or the one that answers.
DEATHS = """

from id3pm.sampling.scheduler import StepScheduler
from id3pm.serving.models.worker import Worker
_rest, _encode = StepScheduler._await_work, DenoiserModel.outputs
def rest(self):
    if os.path.exists(FILE) and open(FILE).read() == "scheduler":
        raise SystemExit
    return _rest(self)
def outputs(self, *args):
    if os.path.exists(FILE) and open(FILE).read() == "answers":
        raise SystemExit
    return _encode(self, *args)
StepScheduler._await_work, DenoiserModel.outputs = rest, outputs
"""


class Faulty:
    """A service whose 64 px engine can be broken."""

    def __init__(self, repository: Path, folder: Path, probe_every_s: float = 1.0) -> None:
        copy = Path(shutil.copytree(repository, folder / "triton_repo"))
        self.switch = folder / "fault"
        model = copy / "denoiser_64" / "1" / "model.py"
        model.write_text(model.read_text() + (FAULT + DEATHS).replace("FILE", repr(str(self.switch))))
        self.said: list[str] = []
        # Steps of these networks take no time, and stages may not say so.
        settings = HealthCheckSettings(loop_steps=0.0, probe_every_s=probe_every_s)
        self.service = service_on(copy, drain_timeout_s=1, health_check=settings, report=self.said.append)

    def generate(self, id: str = "mine") -> tuple[int, Any]:
        connection = http.client.HTTPConnection(self.service.http_url, timeout=60)
        body = {"id": id, "embedding": [0.1] * 128, "seed": 1}
        connection.request("POST", "/v2/models/id3pm_png/generate", json.dumps(body))
        response = connection.getresponse()
        answer = response.status, json.loads(response.read())
        connection.close()
        return answer

    def repaired(self) -> None:
        """Waits until another Triton serves; what was reported of the fault is forgotten."""
        wait_until(lambda: any(line.startswith("ready again") for line in self.said), 30.0)
        self.said.clear()


@contextlib.contextmanager
def running_on(repository: Path, folder: Path, probe_every_s: float) -> Iterator[Faulty]:
    made = Faulty(repository, folder, probe_every_s)
    try:
        with made.service:
            yield made
    finally:
        made.service.kill()


@pytest.fixture(scope="module")
def faulty(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    with running_on(repository, tmp_path_factory.mktemp("faulty"), probe_every_s=1.0) as made:
        yield made


def test_a_scheduler_that_hangs_is_found_within_five_seconds_and_its_request_can_be_sent_again(faulty: Faulty) -> None:
    image = faulty.generate("before")[1]["png"]
    faulty.switch.write_text("hang")
    answers: list[tuple[int, Any]] = []
    thread = threading.Thread(target=lambda: answers.append(faulty.generate()), daemon=True)
    thread.start()
    wait_until(lambda: faulty.said, 5.0)
    faulty.switch.unlink()
    thread.join(timeout=5)
    assert answers[0][0] == 503 and "retry after" in answers[0][1]["error"]
    assert re.match(r"the scheduler of denoiser_64 hangs: no sign of life for [34]\.\d s", faulty.said[0])
    faulty.repaired()
    assert faulty.generate()[1]["png"] == image


def test_an_engine_that_fails_is_found_by_the_probe_though_everything_answers(faulty: Faulty) -> None:
    faulty.switch.write_text("fail")
    wait_until(lambda: faulty.said, 5.0)
    faulty.switch.unlink()
    assert faulty.said[0].startswith("the probe failed: id3pm answered")
    assert "ValueError" in faulty.said[0]
    faulty.repaired()
    assert faulty.generate()[0] == 200


def test_a_thread_that_died_is_found_when_work_waits_for_it(repository: Path, tmp_path: Path) -> None:
    with running_on(repository, tmp_path, probe_every_s=1000.0) as faulty:
        image = faulty.generate("before")[1]["png"]
        for thread, words in (("scheduler", "the scheduler"), ("answers", "the answering thread")):
            faulty.switch.write_text(thread)
            if thread == "scheduler":  # one more request, whose end the loop does not survive
                faulty.generate("last")
            answers: list[tuple[int, Any]] = []
            waiting = threading.Thread(target=lambda to=answers, id=thread: to.append(faulty.generate(id)), daemon=True)
            waiting.start()
            wait_until(lambda: faulty.said, 6.0)
            faulty.switch.unlink()
            waiting.join(timeout=5)
            assert answers[0][0] == 503 and "retry after" in answers[0][1]["error"]
            assert faulty.said[0].startswith(f"{words} of denoiser_64 hangs")
            faulty.repaired()
            assert faulty.generate(thread)[1]["png"] == image
