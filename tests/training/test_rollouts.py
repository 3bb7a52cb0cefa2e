"""Rollouts: sampled as the sampler does, resumed with the same bits, and their gradient leads to the identity."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from tiny_training import TINY_BASE, face_arrays

from id3pm.diffusion.plans import plan
from id3pm.diffusion.samplers import sample
from id3pm.errors import ConfigError
from id3pm.face.stage import FaceStage
from id3pm.training import checkpoint
from id3pm.training.batch import RolloutDraws
from id3pm.training.data import FaceBatches
from id3pm.training.identity_loss import IdentityLoss
from id3pm.training.loop import Trainer
from id3pm.training.presets import TrainConfig
from id3pm.training.rollouts import SAMPLING, Rollouts
from id3pm.training.variation import altered_vectors, composed, jitter

CONFIG = dataclasses.replace(
    TINY_BASE,
    unet=dataclasses.replace(TINY_BASE.unet, identity_dim=128, dropout=0.0),
    identity_loss=0.03,
    identity_jitter=1.0,
    rollouts=3,
    rollout_loss=0.05,
    altered_vectors=0.5,
    batch_size=2,
    total_steps=7,
)


@pytest.fixture(scope="module")
def judge(face_folder: Path) -> IdentityLoss:
    return IdentityLoss(face_folder)


@pytest.fixture(scope="module")
def stage(face_folder: Path) -> FaceStage:
    return FaceStage.load(face_folder, threads=1)


def arrays() -> dict[str, np.ndarray]:
    found = face_arrays()
    vectors = np.random.default_rng(1).standard_normal((len(found["images"]), 128)).astype(np.float32)
    found["vectors"] = found["flipped_vectors"] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found["detections"][:, 4:14] = [5, 6, 10, 6, 8, 9, 6, 12, 10, 12]
    return found


def trainer(config: TrainConfig, folder: Path, judge: IdentityLoss, stage: FaceStage) -> Trainer:
    rollouts = Rollouts(
        judge, stage, config.diffusion, learn_sigma=config.unet.learn_sigma, centring=config.rollout_centring
    )
    facts = {"data": {"images": 60}}
    return Trainer(config, FaceBatches(arrays(), config), folder, facts, Accelerator(cpu=True), judge, None, rollouts)


@pytest.mark.parametrize("mean", [None, (-0.5, 0.0, 0.5)])
def test_rows_are_sampled_as_the_sampler_does(
    judge: IdentityLoss, stage: FaceStage, mean: tuple[float, ...] | None
) -> None:
    diffusion = dataclasses.replace(CONFIG.diffusion, data_mean=mean)
    generator = torch.Generator().manual_seed(0)
    shape, vectors = (2, 3, 16, 16), torch.randn(2, 128, generator=generator)
    start = torch.randn((3, *shape), generator=generator)
    steps = plan(diffusion, SAMPLING, True)
    noise = [torch.randn(shape, generator=generator) for _ in range(len(steps))]

    def network(x: torch.Tensor, t: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
        eps = x * 0.5 + identity[:, :3, None, None] * t[:, None, None, None] / 1000.0
        return torch.cat([eps, eps], dim=1)

    rollouts = Rollouts(judge, stage, diffusion, learn_sigma=True)
    alignments = torch.eye(3)[:2].expand(2, 2, 3)
    seen = []
    for step in range(20):
        draws = RolloutDraws(
            vectors, alignments, start, noise[step % len(steps)], alignments, torch.zeros(128), total=100
        )
        rollouts.begin(draws, step, network)
        if len(rollouts.active) == 0:
            break
        x, t, identity = rollouts.inputs()
        unconditional = network(x, t, torch.zeros_like(identity))
        rollouts.advance(network(x, t, identity), unconditional, draws)
        seen.append(rollouts.state_dict()["images"].clone())
        if len(rollouts.active) == 0:
            break
    added = [start[1], start[2], *noise]

    def model(x: np.ndarray, t: np.ndarray, rows: np.ndarray, conditional: np.ndarray) -> np.ndarray:
        given = vectors[rows] * torch.from_numpy(conditional)[:, None]
        return network(torch.from_numpy(x), torch.from_numpy(t), given).numpy()

    states: list[np.ndarray] = []

    def recorded(x: np.ndarray, t: np.ndarray, rows: np.ndarray, conditional: np.ndarray) -> np.ndarray:
        states.append(x[:2].copy())
        return model(x, t, rows, conditional)

    sample(recorded, start[0].numpy(), [steps] * 2, lambda row, draw: added[draw - 1][row].numpy())
    first = 10 - len(seen) - 4  # of the ten steps two come before the taught ones and four after
    assert (len(seen), first) == (4, 2)
    for number, images in enumerate(seen):
        np.testing.assert_allclose(images.numpy(), states[first + 1 + number], atol=1e-5)


def test_a_process_may_have_no_rollout_under_way(judge: IdentityLoss, stage: FaceStage) -> None:
    """As in the first steps of a run, or where fewer rollouts than processes are asked for."""
    rollouts = Rollouts(judge, stage, CONFIG.diffusion, learn_sigma=True)
    none, places = torch.zeros(0, 3, 64, 64), torch.eye(3)[:2].expand(0, 2, 3)
    draws = RolloutDraws(torch.zeros(0, 128), places, torch.zeros(3, 0, 3, 64, 64), none, places, torch.zeros(128), 100)
    rollouts.begin(draws, 0, lambda x, t, identity: torch.zeros(0, 6, 64, 64))
    x, t, identity = rollouts.inputs()
    assert (len(x), len(t), len(identity)) == (0, 0, 0)
    assert len(rollouts.advance(torch.zeros(0, 6, 64, 64), torch.zeros(0, 6, 64, 64), draws)) == 0


def test_a_resumed_run_goes_on_with_the_same_images(tmp_path: Path, judge: IdentityLoss, stage: FaceStage) -> None:
    straight = trainer(CONFIG, tmp_path, judge, stage)
    losses = [straight.train_step() for _ in range(5)]
    assert any(line["sampled"] > 0 for line in losses)
    straight.save()
    expected = [straight.train_step() for _ in range(2)]
    resumed = trainer(CONFIG, tmp_path, judge, stage)
    resumed.resume()
    assert [resumed.train_step() for _ in range(2)] == expected
    for name, weights in straight.unet.state_dict().items():
        assert torch.equal(weights, resumed.unet.state_dict()[name]), name
    assert set(checkpoint.load(tmp_path).rollouts) == {"places", "images", "vectors", "alignments"}


def test_the_gradient_leads_to_the_identity(judge: IdentityLoss, stage: FaceStage) -> None:
    """A network that is nothing but its output: a step along the gradient brings the wanted face closer."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(1, 128, generator=generator), dim=1)
    start = torch.randn(3, 1, 3, 64, 64, generator=generator)
    alignment = torch.tensor([[[0.5, 0.0, 4.0], [0.0, 0.5, 10.0]]])
    draws = RolloutDraws(vectors, alignment, start, start[0], torch.eye(3)[None, :2], torch.zeros(128), total=1)

    def loss_of(output: torch.Tensor) -> torch.Tensor:
        rollouts = Rollouts(judge, stage, CONFIG.diffusion, learn_sigma=True)
        rollouts.begin(draws, 0, lambda x, t, identity: torch.cat([x, x], dim=1))
        return rollouts.advance(output, torch.zeros(1, 6, 64, 64), draws).sum()

    output = torch.cat([start[0], start[0]], dim=1).requires_grad_()
    before = loss_of(output)
    before.backward()
    assert output.grad is not None
    assert output.grad[:, 3:].abs().max().item() == 0.0, "the variance is not taught"
    after = loss_of(output.detach() - 0.02 * output.grad.sign())
    assert after.item() < before.item() - 0.01


def test_vectors_are_altered_at_their_rate_and_stay_of_length_one() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((50, 16)).astype(np.float32) + 1.0
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    mean, people = vectors.mean(axis=0, dtype=np.float64), rng.integers(50, size=4000)
    made = altered_vectors(vectors, people, mean, 0.25, rng)
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1.0, rtol=1e-5)
    same = (made == vectors[people]).all(axis=1)
    assert same.mean() == pytest.approx(0.75, abs=0.03)
    assert (made[~same] @ mean).mean() < (vectors @ mean).mean() - 0.2, "part of the mean is taken"
    np.testing.assert_array_equal(altered_vectors(vectors, people, mean, 0.0, rng), vectors[people])


def test_jitter_moves_crops_within_the_crop() -> None:
    alignments = np.tile(np.array([[0.5, 0.1, 3.0], [-0.1, 0.5, 7.0]], np.float32), (500, 1, 1))
    np.testing.assert_allclose(composed(alignments, jitter(500, 0.0, np.random.default_rng(0))), alignments, atol=1e-5)
    moved = composed(alignments, jitter(500, 1.0, np.random.default_rng(0)))
    middle = np.array([55.5, 55.5, 1.0])
    shifts = (moved - alignments) @ middle
    assert np.abs(shifts.mean(axis=0)).max() < 0.15
    np.testing.assert_allclose(shifts.std(axis=0), 2.0 * np.hypot(0.5, 0.1), rtol=0.15)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rollouts": 2, "rollout_loss": 0.0}, "rollouts=2, rollout_loss=0.0"),
        ({"identity_loss": 0.0, "identity_jitter": 0.0}, "rollouts=3"),
        ({"altered_vectors": 1.5}, "altered_vectors=1.5"),
        ({"identity_jitter": -1.0}, "identity_jitter=-1.0"),
    ],
)
def test_impossible_runs_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(CONFIG, **changes)  # type: ignore[arg-type]
