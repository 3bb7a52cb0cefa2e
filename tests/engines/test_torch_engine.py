from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_engines
import torch
from tiny_bundle import write_tiny_bundle

from id3pm.engines.inputs import input_shapes
from id3pm.engines.torch_engine import TorchEngine
from id3pm.errors import BundleError, MissingExtraError
from id3pm.formats.bundle import Stage


@pytest.fixture(scope="module")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    write_tiny_bundle(folder)
    return folder


@pytest.mark.parametrize("stage", ["base", "sr"])
def test_engine_of_a_bundle_equals_its_module(bundle_folder: Path, stage: Stage) -> None:
    engine = TorchEngine(bundle_folder, stage)
    rng = np.random.default_rng(0)
    inputs = {name: rng.standard_normal(s, dtype=np.float32) for name, s in input_shapes(engine.config, 2).items()}
    output = engine.run(inputs)
    with torch.inference_mode():
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        expected = tiny_engines.random_unet(engine.config)(**tensors).numpy()
    np.testing.assert_array_equal(output, expected)
    assert output.dtype == np.float32
    assert engine.description == f"torch {torch.__version__} cpu fp32"


def test_folder_without_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        TorchEngine(tmp_path, "base")


def test_missing_torch_names_the_extra(bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match="export"):
        TorchEngine(bundle_folder, "base")


def test_network_runs_at_another_size(bundle_folder: Path) -> None:
    engine = TorchEngine(bundle_folder, "sr", image_size=16)
    inputs = {name: np.zeros(shape, np.float32) for name, shape in input_shapes(engine.config, 2).items()}
    assert inputs["low_res"].shape == (2, 3, 8, 8)
    assert engine.run(inputs).shape == (2, engine.config.out_channels, 16, 16)
