"""With a small /dev/shm, as in containers, a photograph without room in it gets a retry hint."""

from __future__ import annotations

import http.client
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving_process import Serving

pytestmark = pytest.mark.server
ALONE = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=28m tmpfs /dev/shm && exec "$@"', "sh"]
PHOTO = (Path(__file__).parents[2] / "demo/people/03.png").read_bytes()
LARGE = PHOTO + bytes(30 * 2**20 - len(PHOTO))


@pytest.fixture
def serving(repository: Path) -> Iterator[Serving]:
    if subprocess.run([*ALONE, "true"], capture_output=True, check=False, timeout=30).returncode:
        pytest.skip("only root may mount a /dev/shm of its own")
    running = Serving(repository, within=ALONE)
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
