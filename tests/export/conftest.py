"""Exports that several test files share: each costs seconds."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def exported_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of the tiny random networks; read-only for tests."""
    from tiny_bundle import write_tiny_bundle

    folder = tmp_path_factory.mktemp("bundle")
    write_tiny_bundle(folder)
    return folder


@pytest.fixture(scope="session")
def exported(exported_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Its fp32 graphs by stage, as for GPUs; read-only for tests."""
    from id3pm.export.unet import onnx_export as to_onnx

    graphs = {}
    for stage in ("base", "sr"):
        graphs[stage] = tmp_path_factory.mktemp(stage) / "model.onnx"
        to_onnx.export_onnx(exported_bundle, stage, graphs[stage])  # type: ignore[arg-type]
    return graphs
