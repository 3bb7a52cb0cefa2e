"""As in the pods of deploy/chart: a read-only file system but for /tmp, a small /dev/shm, no rights.

With a small /dev/shm a photograph without room in it gets a retry hint.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving_process import Serving

pytestmark = pytest.mark.server
REPOSITORY = Path("/mnt")
CONTAINER = """
mount --bind "$REPOSITORY" /mnt && mount -o remount,bind,ro /mnt
mount -t tmpfs tmpfs /tmp && mount -t tmpfs -o size=28m tmpfs /dev/shm
mount -o remount,bind,ro / && cd / && ! touch /mnt/x /x 2>/dev/null
exec setpriv --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""
ALONE = ["unshare", "--mount", "sh", "-ec", CONTAINER, "sh"]
PHOTO = (Path(__file__).parents[2] / "demo/people/03.png").read_bytes()
LARGE = PHOTO + bytes(30 * 2**20 - len(PHOTO))


@pytest.fixture(scope="module")
def serving(repository: Path) -> Iterator[Serving]:
    environment = {"REPOSITORY": str(repository), "HOME": "/tmp", "TMPDIR": "/tmp"}
    possible = subprocess.run([*ALONE, "true"], env={**os.environ, **environment}, capture_output=True, timeout=30)
    if possible.returncode:
        pytest.skip(f"only root may mount file systems of its own: {possible.stderr.decode()}")
    running = Serving(REPOSITORY, within=ALONE, environment=environment)
    try:
        yield running
    finally:
        running.kill()


def embed(serving: Serving, photo: bytes) -> tuple[int, str, str]:
    size = {"binary_data_size": len(photo) + 4}
    inputs = [{"name": "photo", "shape": [1, 1], "datatype": "BYTES", "parameters": size}]
    outputs = [{"name": "embedding", "parameters": {"binary_data": False}}]
    head = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
    body = head + len(photo).to_bytes(4, "little") + photo
    connection = http.client.HTTPConnection("127.0.0.1", serving.http_port, timeout=60)
    headers = {"Inference-Header-Content-Length": str(len(head))}
    connection.request("POST", "/v2/models/face_embedding/infer", body, headers)
    response = connection.getresponse()
    answer = response.status, response.headers.get("Retry-After", ""), response.read().decode()
    connection.close()
    return answer


def vector(serving: Serving) -> list[float]:
    status, _, content = embed(serving, PHOTO)
    assert status == 200, content
    return list(json.loads(content)["outputs"][0]["data"])


def test_a_photograph_that_finds_no_shared_memory_is_told_to_come_back(serving: Serving) -> None:
    before = vector(serving)
    for _ in range(2):
        status, after, content = embed(serving, LARGE)
        assert (status, after) == (503, "1") and "no shared memory left" in content, content
        assert "shm_region" not in content
    assert vector(serving) == before


def test_an_image_is_made_without_rights_on_a_read_only_file_system(serving: Serving) -> None:
    answers: list[tuple[int, Any]] = []
    serving.generate(answers, steps=2).join(timeout=60)
    assert [status for status, _ in answers] == [200], answers
    status = Path(f"/proc/{serving.process.pid}/status").read_text()
    assert "CapBnd:\t0000000000000000" in status and "NoNewPrivs:\t1" in status
    serving.process.send_signal(signal.SIGTERM)
    assert serving.end() == 0, serving.said
