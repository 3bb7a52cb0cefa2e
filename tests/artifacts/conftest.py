"""A bundle and an engine set to send, a hub, and a real registry."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_hub import FakeHub
from pulling import asked
from tiny_bundle import write_tiny_bundle
from tiny_engines import rewrite_manifest
from waiting import wait_until

from id3pm.engines.manifest import read_manifest
from id3pm.face.manifest import FaceManifest, write_manifest
from id3pm.face.preprocessing import Preprocessing
from id3pm.formats.hashing import file_sha256

CONFIGURATION = """\
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {folder}}}, delete: {{enabled: true}}}}
http: {{addr: 127.0.0.1:{port}}}
{more}
"""


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole bundle, read-only for tests."""
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    write_tiny_bundle(folder)
    return folder


@pytest.fixture(scope="session")
def engines(tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with engines, the face models of made-up bytes; read-only for tests."""
    repository = tmp_path_factory.mktemp("engines") / "triton_repo"
    shutil.copytree(tiny_repository, repository)
    versions = {"onnxruntime": importlib.metadata.version("onnxruntime")}
    for model in ("denoiser_64", "super_resolution"):
        folder = repository / model / "1" / "engine"
        rewrite_manifest(folder, read_manifest(folder), versions=versions)
    face = repository / "face_embedding" / "1" / "engine"
    face.mkdir(parents=True)
    for name in ("yunet.onnx", "sface.onnx"):
        (face / name).write_bytes(name.encode() * 1000)
    manifest = FaceManifest(
        id_vector_model="sface",
        identity_dim=8,
        detector="yunet",
        detector_files={"yunet.onnx": file_sha256(face / "yunet.onnx")},
        encoder_file="sface.onnx",
        encoder_sha256=file_sha256(face / "sface.onnx"),
        preprocessing=Preprocessing(),
        source="made up",
        source_sha256="0" * 64,
        licence="MIT",
        recipe=0,
    )
    write_manifest(face, manifest)
    return repository


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub, to which `hf://` leads."""
    hub = FakeHub()
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    yield hub
    hub.close()


@pytest.fixture(scope="session")
def start_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., tuple[str, Path]]]:
    """Starts real registries; each is `host:port`, and the folder of its files."""
    program = shutil.which("docker-registry") or shutil.which("build/docker-registry")
    if program is None:
        if os.environ.get("ID3PM_REQUIRE_REGISTRY"):
            pytest.fail("there is no docker-registry: apt-get install docker-registry")
        pytest.skip("there is no docker-registry")
    running: list[subprocess.Popen[bytes]] = []

    def start(more: str = "") -> tuple[str, Path]:
        folder = tmp_path_factory.mktemp("registry")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        file = folder / "config.yml"
        file.write_text(CONFIGURATION.format(folder=folder / "files", port=port, more=more.format(folder=folder)))
        running.append(
            subprocess.Popen([program, "serve", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )
        wait_until(lambda: _answers(f"127.0.0.1:{port}"), pause_s=0.05)
        return f"127.0.0.1:{port}", folder

    yield start
    for process in running:
        process.kill()
        process.wait(timeout=10)


@pytest.fixture(scope="session")
def registry(start_registry: Callable[..., tuple[str, Path]]) -> tuple[str, Path]:
    """A registry without access control."""
    return start_registry()


def _answers(host: str) -> bool:
    try:
        return asked(host, "/v2/")[0] in (200, 401)
    except OSError:
        return False
