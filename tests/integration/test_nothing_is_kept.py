"""docs/responsible_use.md: the service writes neither photographs nor ID vectors nor images, and logs none of them."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from services import service_on

from id3pm.serving.gateway.options import GatewayOptions

pytestmark = pytest.mark.server
PHOTO = Path(__file__).parents[2] / "demo/people/03.png"


def files_in(*folders: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}


def test_nothing_that_shows_a_person_is_written_or_logged(
    repository: Path,
    wire_to: Callable[[Any], Any],
    embedding: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    temporary, working = tmp_path / "temporary", tmp_path / "working"
    temporary.mkdir()
    working.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.chdir(working)
    before = files_in(repository)
    lines: list[str] = []
    service = service_on(repository, gateway=GatewayOptions(), on_log=lines.append, report=lines.append)
    photo = PHOTO.read_bytes()
    secrets: list[bytes] = [photo[-200:-160], base64.b64encode(photo)[-240:-200], *shown(embedding)]
    try:
        with service:
            wire = wire_to(service)
            body = {"seed": 1, "photo": base64.b64encode(photo).decode()}
            status, answer = wire.http("/v2/models/id3pm_photo_png/generate", body)
            assert status == 200, answer
            png = json.loads(answer)["png"] if isinstance(answer, (str, bytes)) else answer["png"]
            secrets += [png[-240:-200].encode(), base64.b64decode(png)[-200:-160]]
            assert wire.http("/v2/models/id3pm_png/generate", {"seed": 1, "embedding": embedding.tolist()})[0] == 200
            # What is refused is told to the caller, who knows it already.
            wrong = {"seed": 1, "embedding": embedding.tolist()[:-1]}
            assert wire.http("/v2/models/id3pm_png/generate", wrong)[0] >= 400
            body["photo"] = base64.b64encode(photo[:2000]).decode()
            assert wire.http("/v2/models/id3pm_photo_png/generate", body)[0] >= 400
            during = files_in(repository, temporary, working)
            wire.grpc.close()
    finally:
        service.kill()
    written = {path: data for path, data in during.items() if before.get(path) != data}
    assert len(lines) > 3, "nothing was logged at all: this test would see nothing"
    for secret in secrets:
        assert not [path for path, data in written.items() if secret in data]
        assert not [line for line in lines if secret in line.encode()]


def shown(vector: np.ndarray) -> list[bytes]:
    """Ways in which the first numbers of an ID vector could be written down."""
    numbers = [float(value) for value in vector[:3]]
    texts = [", ".join(map(str, numbers)), " ".join(f"{number:.6g}" for number in numbers), f"{numbers[1]:.6f}"]
    return [vector[:3].tobytes(), *(text.encode() for text in texts)]
