"""With /dev/shm as small as Docker makes it, a photograph that finds no room is told to come back."""

from __future__ import annotations

import http.client
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving_process import Serving

pytestmark = pytest.mark.server
ALONE = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "$@"', "sh"]
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


def test_photographs_that_find_no_shared_memory_are_told_to_come_back(serving: Serving) -> None:
    before, answers = vector(serving), list[tuple[int, str, str]]()
    threads = [threading.Thread(target=lambda: answers.append(embed(serving, LARGE)), daemon=True) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert {status for status, _, _ in answers} == {200, 503}
    refused = [(after, content) for status, after, content in answers if status == 503]
    assert all(after == "1" and "no shared memory left" in content for after, content in refused)
    assert all("shm_region" not in content for _, content in refused)
    assert vector(serving) == before
