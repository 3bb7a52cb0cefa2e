"""Exports that several test files share: each costs seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from made_once import made_once


@pytest.fixture(scope="session")
def exported_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of the tiny random networks; read-only for tests."""
    from tiny_bundle import write_tiny_bundle

    return made_once(tmp_path_factory, "tiny_bundle", write_tiny_bundle)


@pytest.fixture(scope="session")
def built(exported_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with both engines of this bundle for CPUs; tests that change one copy it."""
    from id3pm.export.build import main

    def make(repository: Path) -> None:
        arguments = ["--bundle", str(exported_bundle), "--repository", str(repository), "--max-batch", "4"]
        for stage in ("base", "sr"):
            result = CliRunner().invoke(main, [*arguments, "--stage", stage])
            assert result.exit_code == 0, result.output
            assert "installed" in result.output and "MISS" not in result.output

    return made_once(tmp_path_factory, "tiny_engines", make)


@pytest.fixture(scope="session")
def exported(built: Path) -> dict[str, Path]:
    """Its fp32 graphs by stage, which are too narrow to differ from those for GPUs; read-only for tests."""
    folders = {"base": "denoiser_64", "sr": "super_resolution"}
    return {stage: built / folder / "1/engine/model.onnx" for stage, folder in folders.items()}
