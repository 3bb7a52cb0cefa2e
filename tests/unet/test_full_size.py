"""Table 2 at full size: checkpoint -> bundle -> one forward pass, against the original's output.

The golden values are a subset of pixels, each of which depends on every weight
(`make_unet_golden.py --full-size`). Needs about 5 GB of disk and of memory.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from id3pm.formats.bundle import Stage, load_weights, read_bundle
from id3pm.unet.model import expected_shapes, load_unet
from tests.golden.unet_cases import FULL_SIZE, KEEP_EVERY, inputs, weights

GOLDEN = Path(__file__).parents[1] / "golden" / "unet_full_size_golden.npz"
PRESETS: dict[Stage, str] = {"base": "paper-base-64", "sr": "paper-sr-256"}
ALLOWED_PEAK_KB = 12_000_000

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The bundle that `id3pm convert` makes of two full-size checkpoints."""
    folder = tmp_path_factory.mktemp("full_size")
    for stage, preset in PRESETS.items():
        tensors = weights(expected_shapes(FULL_SIZE[preset]))
        torch.save({key: torch.from_numpy(array) for key, array in tensors.items()}, folder / f"{stage}.pt")
        del tensors
    arguments = ["convert", "--base=base.pt", "--sr=sr.pt", "--out=bundle", "--name=full", "--licence=MIT"]
    command = [
        sys.executable,
        "-c",
        "from id3pm.cli import main; main()",
        *arguments,
        "--id-vector-model=insightface:buffalo_l",
    ]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run(command, cwd=folder, env=environment, check=True, timeout=280)
    yield folder / "bundle"
    shutil.rmtree(folder)


def test_converting_takes_less_than_12_gb(bundle: Path) -> None:
    assert read_bundle(bundle).base == FULL_SIZE["paper-base-64"]
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < ALLOWED_PEAK_KB


@pytest.mark.parametrize("stage", PRESETS)
def test_full_size_forward_equals_the_original(bundle: Path, stage: Stage) -> None:
    preset = PRESETS[stage]
    config = FULL_SIZE[preset]
    unet = load_unet(config, load_weights(bundle, stage))
    arguments = {key: torch.from_numpy(array) for key, array in inputs(config, batch=1).items()}
    with torch.no_grad():
        output = unet(**arguments).numpy()[..., :: KEEP_EVERY[preset], :: KEEP_EVERY[preset]]
    expected = np.load(GOLDEN)[preset]
    assert output.shape == expected.shape
    error = np.abs(output - expected).max() / np.abs(expected).max()
    sys.stdout.write(f"{preset}: relative error {error:.1e}, peak of conversion ")
    sys.stdout.write(f"{resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6:.1f} GB\n")
    assert error <= 1e-4
