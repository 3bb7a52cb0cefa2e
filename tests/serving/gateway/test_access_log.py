"""The access log: caller, request and outcome; no content of requests."""

from __future__ import annotations

import errno
import io
import json
import logging.handlers
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up_triton import Front

from id3pm.errors import ConfigError
from id3pm.serving.gateway.access_log import AccessLog, note
from id3pm.serving.gateway.auth import Access, Caller
from id3pm.serving.gateway.options import GatewayOptions

TOKEN = "t" * 20
VECTOR = {"name": "embedding", "shape": [1, 2], "datatype": "FP32", "data": [0.123456, 0.5]}
INFER = "/v2/models/id3pm/infer"


@pytest.fixture
def logged(open_front: Callable[[GatewayOptions], Front], tmp_path: Path) -> tuple[Front, Path]:
    access = Access([(TOKEN.encode(), Caller("studio", ("vector",)))])
    file = tmp_path / "access.log"
    return open_front(GatewayOptions(max_body=10_000, access=access, access_log=str(file))), file


def lines(file: Path, count: int) -> list[dict[str, Any]]:
    """So many lines; waits for them, since an answer may arrive before its line is written."""
    end = time.monotonic() + 5.0
    while not file.is_file() or len(file.read_text().splitlines()) < count:
        assert time.monotonic() < end, f"less than {count} lines in {file}"
        time.sleep(0.01)
    found = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(found) == count
    return found


def test_work_and_refusals_are_logged_with_id_and_caller_and_without_what_was_sent(logged: tuple[Front, Path]) -> None:
    front, file = logged
    body = json.dumps({"id": "order 7", "inputs": [VECTOR]}).encode()
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert front.http("POST", INFER, body, headers)[0] == 200
    assert front.http("POST", "/v2/models/id3pm_photo/infer", body, headers)[0] == 403
    assert front.http("POST", INFER, body)[0] == 401
    assert front.http("GET", "/v2/health/ready")[0] == 200  # a probe: not worth a line
    first, second, third = lines(file, 3)
    assert (first["id"], first["caller"], first["model"], first["outcome"]) == ("order 7", "studio", "id3pm", "200")
    assert first["bytes_in"] == len(body) and first["seconds"] >= 0 and first["peer"] == "127.0.0.1"
    assert (second["model"], second["outcome"]) == ("id3pm_photo", "403")
    assert third["outcome"] == "401" and "caller" not in third
    assert "0.123456" not in file.read_text() and TOKEN not in file.read_text()


def test_a_log_that_was_moved_away_is_opened_anew(tmp_path: Path) -> None:
    file = tmp_path / "access.log"
    access_log = AccessLog(str(file))
    for name in ("before", "after"):
        entry = access_log.begin("http", "POST /", "127.0.0.1")
        note(model="id3pm", id=name)
        access_log.end(entry, "200")
        if name == "before":
            file.rename(tmp_path / "access.log.1")
    access_log.close()
    assert [lines(tmp_path / name, 1)[0]["id"] for name in ("access.log.1", "access.log")] == ["before", "after"]


def test_line_breaks_in_an_id_stay_inside_the_line(tmp_path: Path) -> None:
    access_log = AccessLog(str(tmp_path / "log"))
    entry = access_log.begin("grpc", "ModelInfer", "ipv4:127.0.0.1:1")
    note(model="id3pm", id='x\n{"caller": "root"}')
    access_log.end(entry, "OK")
    access_log.close()
    assert [line["id"] for line in lines(tmp_path / "log", 1)] == ['x\n{"caller": "root"}']


class FullDisk(io.StringIO):
    """As a file on a disk without space."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_costs_lines_and_no_request(logged: tuple[Front, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    front, file = logged
    body = json.dumps({"id": "a", "inputs": [VECTOR]}).encode()
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with monkeypatch.context() as full:
        full.setattr(logging.handlers.WatchedFileHandler, "_open", lambda handler: FullDisk())
        file.unlink()  # the next line finds it gone
        for _ in range(3):
            assert front.http("POST", INFER, body, headers)[0] == 200
        text = front.http("GET", "/metrics", port="metrics-port")[2].decode()
    assert "id3pm_gateway_dropped_lines_total 3" in text


def test_a_folder_that_has_gone_costs_lines_and_no_request_and_its_return_is_seen(
    open_front: Callable[[GatewayOptions], Front], tmp_path: Path
) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    front = open_front(GatewayOptions(access_log=str(folder / "access.log")))
    body = json.dumps({"id": "a", "inputs": [VECTOR]}).encode()
    assert front.http("POST", INFER, body)[0] == 200
    lines(folder / "access.log", 1)
    shutil.rmtree(folder)
    for _ in range(2):
        assert front.http("POST", INFER, body)[0] == 200
    end = time.monotonic() + 5.0
    while b"id3pm_gateway_dropped_lines_total 2" not in front.http("GET", "/metrics", port="metrics-port")[2]:
        assert time.monotonic() < end
    folder.mkdir()
    assert front.http("POST", INFER, body)[0] == 200
    lines(folder / "access.log", 1)


def test_a_log_that_cannot_be_opened_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--access-log .*No such file"):
        AccessLog(str(tmp_path / "missing" / "access.log"))


def test_a_line_has_a_bound_whatever_a_request_says_of_itself(tmp_path: Path) -> None:
    file = tmp_path / "access.log"
    access_log = AccessLog(str(file))
    entry = access_log.begin("grpc", "ModelInfer", "ipv4:127.0.0.1:1")
    note(caller="studio", model="m" * 10_000_000, id="\U0001f600" * 256)
    access_log.end(entry, "NOT_FOUND")
    access_log.close()
    assert len(file.read_bytes()) < 6_000
