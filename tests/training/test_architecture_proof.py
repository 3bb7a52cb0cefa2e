"""Fields that shapes leave open are found by pictures or by a stored output."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from id3pm.config import DiffusionConfig, UNetConfig
from id3pm.errors import CheckpointError, InvalidInputError
from id3pm.formats.bundle import load_weights, read_bundle
from id3pm.training import architecture_proof, candidates
from id3pm.training.architecture_proof import (
    compare_with_output,
    read_output,
    silent,
    squares,
    trial_size,
    try_on_pictures,
)
from id3pm.training.candidates import Candidate, attention_and_groups, others
from id3pm.training.convert import convert_command
from id3pm.training.gan import FaceGenerator
from id3pm.unet.model import expected_shapes, load_unet
from tests.golden.unet_cases import weights

pytest.importorskip("gan_face_generate", reason="pip install --no-deps gan_face_generate==1.1.1")
pytestmark = pytest.mark.timeout(900)  # seconds on a machine of its own
DEMO = Path(__file__).parents[2] / "bundles/demo"
TINY = UNetConfig(
    image_size=16, num_channels=32, num_res_blocks=1, channel_mult=(1, 2), attention_resolutions=(8,), num_heads=2
)


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    """Generated faces, uint8 [16, 64, 64, 3]."""
    return FaceGenerator().sample(0, range(16))


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer candidates, so that the tests are quick."""
    monkeypatch.setattr(candidates, "HEADS", (1,))
    monkeypatch.setattr(candidates, "HEAD_CHANNELS", (32,))
    monkeypatch.setattr(candidates, "NORM_GROUPS", (32, 8))
    monkeypatch.setattr(candidates, "DIFFUSION_STEPS", (1000,))
    monkeypatch.setattr(architecture_proof, "ROUNDS", (8, 16))


@pytest.mark.parametrize(
    ("unet", "diffusion", "named"),
    [
        ({"norm_groups": 32}, {}, "norm_groups=8"),
        (
            {"use_new_attention_order": False},
            {"noise_schedule": "linear"},
            "use_new_attention_order=true, noise_schedule=cosine",
        ),
    ],
    ids=["groups", "order and schedule"],
)
def test_the_demo_bundles_own_network_is_found(
    faces: np.ndarray, unet: dict[str, object], diffusion: dict[str, object], named: str
) -> None:
    bundle = read_bundle(DEMO)
    right = Candidate(bundle.base, bundle.base_diffusion)
    given = Candidate(replace(bundle.base, **unet), replace(bundle.base_diffusion, **diffusion))  # type: ignore[arg-type]
    verdict = try_on_pictures(load_weights(DEMO, "base"), given, faces, silent)
    assert verdict.conclusive and verdict.best.same_network(right)
    assert verdict.best.unlike(given) == named
    assert verdict.error < verdict.given_error


def test_convert_names_the_right_network_and_writes_nothing(tmp_path: Path) -> None:
    for stage in ("base", "sr"):
        tensors = {f"module.{key}": torch.from_numpy(array) for key, array in load_weights(DEMO, stage).items()}  # type: ignore[arg-type]
        torch.save(tensors, tmp_path / f"{stage}.pt")
    description = json.loads((DEMO / "bundle.json").read_text())

    def convert(*flags: str) -> Result:
        (tmp_path / "c.json").write_text(json.dumps(description))
        files = [f"--{name}={tmp_path / file}" for name, file in (("base", "base.pt"), ("sr", "sr.pt"), ("out", "out"))]
        files += [f"--base-config={tmp_path / 'c.json'}", f"--sr-config={tmp_path / 'c.json'}"]
        return CliRunner().invoke(convert_command, [*files, "--id-vector-model=sface", "--licence=MIT", *flags])

    description["base"]["use_new_attention_order"] = False
    refused = convert()
    assert isinstance(refused.exception, CheckpointError), refused.output
    assert "with use_new_attention_order=true instead of use_new_attention_order=false" in str(refused.exception)
    assert not (tmp_path / "out").exists()
    description["base"]["use_new_attention_order"] = True
    result = convert()
    assert result.exit_code == 0, (result.output, result.exception)
    assert (
        "base: the shapes leave open num_head_channels=32, use_new_attention_order=true, norm_groups=8" in result.output
    )
    assert "noise_schedule=cosine, rescale_timesteps=false" in result.output
    assert read_bundle(tmp_path / "out").training_card["architecture"]["base"].startswith("proven: error of the")


def test_weights_that_denoise_nothing_prove_nothing(faces: np.ndarray) -> None:
    given = Candidate(TINY, DiffusionConfig())
    small = squares(list(faces[:8]), trial_size(TINY))
    assert not try_on_pictures(weights(expected_shapes(TINY)), given, small, silent).conclusive


@pytest.fixture
def stored(tmp_path: Path) -> Callable[..., Path]:
    """Writes a forward pass of `TINY` with random weights."""

    def write(**changes: np.ndarray) -> Path:
        unet = load_unet(TINY, weights(expected_shapes(TINY)))
        x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        t = torch.tensor([3.0, 700.0])
        with torch.inference_mode():
            arrays = {"x": x.numpy(), "timesteps": t.numpy(), "output": unet(x, t).numpy()}
        np.savez(tmp_path / "output.npz", **{**arrays, **changes})
        return tmp_path / "output.npz"

    return write


def test_a_stored_output_proves_heads_and_order(stored: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "HEADS", (1, 2, 4))
    tensors, output = weights(expected_shapes(TINY)), read_output(stored())
    right = Candidate(TINY, DiffusionConfig())
    verdict = compare_with_output(tensors, right, output, silent)
    assert (verdict.best, verdict.tried) == (right, 0) and verdict.error < 1e-5
    wrong = Candidate(replace(TINY, num_heads=4, use_new_attention_order=True), DiffusionConfig())
    verdict = compare_with_output(tensors, wrong, output, silent)
    assert verdict.best.unlike(wrong) == "num_heads=2, use_new_attention_order=false"
    assert verdict.error < 1e-5 < verdict.given_error


def test_an_output_of_other_weights_is_refused(stored: Callable[..., Path]) -> None:
    other = read_output(stored(output=np.ones((2, 6, 16, 16), np.float32)))
    with pytest.raises(CheckpointError, match="no network of these shapes gives the stored output"):
        compare_with_output(weights(expected_shapes(TINY)), Candidate(TINY, DiffusionConfig()), other, silent)
    with pytest.raises(InvalidInputError, match="has output, timesteps, x, y: need x, timesteps and output"):
        read_output(stored(y=np.zeros(2)))


def test_candidates_are_different_networks_of_the_same_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    given = Candidate(read_bundle(DEMO).base, read_bundle(DEMO).base_diffusion)
    for found in (others(given), attention_and_groups(given)):
        assert len(found) > 10
        for number, candidate in enumerate(found):
            assert expected_shapes(candidate.unet) == expected_shapes(given.unet)
            assert not any(candidate.same_network(other) for other in (given, *found[:number]))
    one_head = Candidate(replace(given.unet, num_head_channels=None, num_heads=1), given.diffusion)
    assert one_head.same_network(replace(one_head, unet=replace(one_head.unet, use_new_attention_order=False)))
    stretched = DiffusionConfig(diffusion_steps=4000, rescale_timesteps=True)
    assert given.same_network(replace(given, diffusion=stretched)), "the same time is told for the same noise"
