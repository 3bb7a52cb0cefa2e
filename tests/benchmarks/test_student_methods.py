"""The comparison of ways to train a student: every method trains, and its own formula holds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_engines import random_unet
from tiny_teacher import BASE, DIFFUSION, FAST, write_teacher

from id3pm.config import to_json
from id3pm.diffusion.schedule import kept_schedule
from id3pm.engines.torch_engine import TorchEngine
from id3pm.errors import CheckpointError
from id3pm.formats.arrays import write_arrays
from id3pm.formats.bundle import weights_hash
from id3pm.training.distillation.pairs import KIND, SHARD, pairs_file
from id3pm.training.distillation.teacher import Teacher
from student_methods import HEADS, line
from student_parts.consistency import ConsistencyDistiller, Trajectory
from student_parts.matching import MatchingDistiller, Noising, half_square, matching_gradient
from student_parts.methods import METHODS, Setting, begun, common_config, trained

STUDENT = dataclasses.replace(DIFFUSION, student_timesteps=(38, 83))
SHORT = 0.005  # minutes


@pytest.fixture(autouse=True)
def fresh_accelerate() -> None:
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module")
def pairs(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("pairs"), np.random.default_rng(0)
    vectors = rng.standard_normal((SHARD, 8)).astype(np.float32)
    arrays = {
        "seeds": np.arange(SHARD),
        "results": rng.integers(0, 256, (SHARD, 16, 16, 3), dtype=np.uint8),
        "identity": vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        "scales": rng.uniform(1.0, 3.0, SHARD).astype(np.float32),
    }
    made = {
        "teacher_weights_sha256": weights_hash(bundle, "base"),
        "train_size": 16,
        "guidance_range": [1.0, 3.0],
        "sampling": to_json(FAST),
    }
    write_arrays(pairs_file(folder, 0), {"kind": KIND, "schema_version": 1, **made}, arrays)
    return folder


@pytest.fixture
def setting(bundle: Path, pairs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Setting]:
    # The tiny bundle has no FR model: the identity loss is tested with the product's.
    monkeypatch.setattr(Setting, "config_of", lambda self, method: without_identity(self, method.changes))
    teacher = Teacher(TorchEngine(bundle, "base"), DIFFUSION, FAST)
    yield Setting(bundle, teacher, pairs, bundle, common_config(bundle, pairs, batch_size=4), SHORT)
    teacher.close()


def without_identity(setting: Setting, changes: object) -> object:
    return dataclasses.replace(setting.config, **{**dict(changes), "identity_loss": 0.0})  # type: ignore[call-overload]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains_every_layer_and_keeps_its_student(name: str, setting: Setting, tmp_path: Path) -> None:
    run = begun(METHODS[name], setting, tmp_path, {})
    before = {key: value.clone() for key, value in run.unet.named_parameters()}
    losses = [run.train_step() for _ in range(3)]
    assert all(np.isfinite(value) for one in losses for value in one.values())
    assert [key for key, value in run.unet.named_parameters() if torch.equal(value, before[key])] == []


@pytest.mark.parametrize("name", ["consistency", "dmd2"])
def test_a_comparison_keeps_its_students_and_goes_on(name: str, setting: Setting, tmp_path: Path) -> None:
    unet, reached = trained(name, setting, tmp_path)
    assert reached["steps"] >= 1 and reached["processor_s"] >= 60 * SHORT
    again, same = trained(name, setting, tmp_path)
    assert same == reached
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in unet.state_dict().items())
    _, longer = trained(name, dataclasses.replace(setting, minutes=4 * SHORT), tmp_path)
    assert longer["steps"] > reached["steps"] and longer["processor_s"] >= 240 * SHORT
    with pytest.raises(CheckpointError, match="was trained for"):
        trained(name, dataclasses.replace(setting, minutes=2 * SHORT), tmp_path)
    other = dataclasses.replace(setting, config=dataclasses.replace(setting.config, learning_rate=1e-3))
    with pytest.raises(CheckpointError, match="otherwise|learning_rate"):
        trained(name, other, tmp_path)


def test_a_run_that_goes_on_has_the_same_fake_score(setting: Setting, tmp_path: Path) -> None:
    straight = begun(METHODS["dmd2"], setting, tmp_path, {})
    straight.train_step()
    straight.save()
    resumed = begun(METHODS["dmd2"], setting, tmp_path, {})
    resumed.resume()
    assert straight.train_step() == resumed.train_step()
    assert straight.train_step() == resumed.train_step()


def test_pairs_of_another_teacher_are_refused(bundle: Path, pairs: Path, tmp_path: Path) -> None:
    header = {"teacher_weights_sha256": "0" * 64, "train_size": 16, "guidance_range": [1.0, 3.0]}
    write_arrays(pairs_file(tmp_path, 0), {"kind": KIND, "schema_version": 1, **header}, {"seeds": np.arange(SHARD)})
    with pytest.raises(CheckpointError, match="teacher_weights_sha256"):
        common_config(bundle, tmp_path)


def test_at_the_clean_end_an_image_is_its_own_whatever_the_network_predicts() -> None:
    trajectory, x = Trajectory(STUDENT), torch.randn(2, 3, 4, 4)
    end = torch.full((2,), len(trajectory))
    assert torch.equal(trajectory.x0(x, 100.0 * torch.randn_like(x), end), x)
    last = end - 1  # the ODE's last step ends at the image that the teacher predicts
    image = torch.randn_like(x)
    assert torch.allclose(trajectory.after(x, image, last), image)


def test_a_trajectory_stays_on_the_line_of_one_image_and_one_noise() -> None:
    trajectory = Trajectory(STUDENT)
    assert set(STUDENT.student_timesteps or ()) <= set(trajectory.timesteps)
    image, noise = torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 4)
    kept = kept_schedule(STUDENT, trajectory.timesteps).alphas_cumprod[::-1]
    for place in range(len(trajectory) - 1):
        at = torch.tensor([place])
        x = trajectory.noised(image, noise, at)
        assert torch.allclose(trajectory.x0(x, noise, at), image, atol=1e-4)
        expected = kept[place + 1] ** 0.5 * image + (1 - kept[place + 1]) ** 0.5 * noise
        assert torch.allclose(trajectory.after(x, image, at), expected.float(), atol=1e-5)


def test_the_target_of_consistency_is_the_averages_image_one_guided_step_further(
    setting: Setting, tmp_path: Path
) -> None:
    run = begun(METHODS["consistency"], setting, tmp_path, {})
    assert isinstance(run, ConsistencyDistiller)
    line_, places = run.trajectory, torch.tensor([0, 9, len(run.trajectory) - 1])
    vectors, x = torch.randn(3, 8), torch.randn(3, 3, 16, 16)
    given = {"identity": vectors, "guidance": torch.tensor([1.0, 2.0, 3.0])}
    found = run.targets(x, places, given)
    network, t = random_unet(BASE), line_.at("timestep", places)
    with torch.no_grad():
        conditional, null = network(x, t, identity=vectors)[:, :3], network(x, t)[:, :3]
        eps = null + given["guidance"].view(-1, 1, 1, 1) * (conditional - null)
        x0 = line_.x0(x, eps, places).clamp(-1, 1)
        after = line_.after(x, x0, places)
        # The average begins as the teacher without guidance.
        t = line_.at("timestep", places + 1)
        expected = line_.x0(after, network(after, t, identity=vectors)[:, :3], places + 1).clamp(-1, 1)
    assert torch.allclose(found, expected, atol=1e-3)
    assert torch.allclose(found[2], x0[2], atol=1e-3)


def test_the_gradient_of_matching_is_that_of_two_normal_distributions() -> None:
    # Denoisers of N(m, 1) are known: x0 = a x + s^2 m with a^2 + s^2 = 1. KL between the two has the gradient m1 - m2.
    fake_mean, real_mean, share = 0.4, -0.2, 0.36
    images = torch.randn(5, 3, 8, 8) + fake_mean
    x = share**0.5 * images + (1 - share) ** 0.5 * torch.randn_like(images)
    fake, real = (share**0.5 * x + (1 - share) * mean for mean in (fake_mean, real_mean))
    found = matching_gradient(images, fake, real)
    distance = (images - real).abs().mean(dim=(1, 2, 3)).view(-1, 1, 1, 1)
    assert torch.allclose(found * distance, torch.full_like(found, (1 - share) * (fake_mean - real_mean)), atol=1e-6)
    assert torch.equal(matching_gradient(images, real, real), torch.zeros_like(images))

    moved = images.clone().requires_grad_()
    half_square(moved - (images - found)).mean().backward()
    assert moved.grad is not None
    assert torch.allclose(moved.grad, found / images.numel(), atol=1e-9)


def test_a_fake_score_that_is_the_teacher_leaves_the_guidance_alone(setting: Setting, tmp_path: Path) -> None:
    run = begun(METHODS["dmd2"], setting, tmp_path, {})
    assert isinstance(run, MatchingDistiller)
    run.noising.timesteps = torch.arange(2, 8)  # little noise: the teacher's images are not clipped
    images = 0.1 * torch.randn(4, 3, 16, 16)
    given = {"identity": torch.randn(4, 8)}
    plain, guided = (
        run.matching(images, {**given, "guidance": torch.full((4,), scale)}).abs().mean() for scale in (1.0, 3.0)
    )
    assert plain < 0.01 * guided


def test_the_fake_score_learns_the_students_images(setting: Setting, tmp_path: Path) -> None:
    run = begun(METHODS["dmd2"], setting, tmp_path, {})
    assert isinstance(run, MatchingDistiller)
    given = {"identity": torch.randn(4, 8), "guidance": torch.full((4,), 2.0)}
    losses = [run.update_fake(torch.full((4, 3, 16, 16), 0.5), given) for _ in range(60)]
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[:10])


def test_scores_are_compared_where_an_error_of_eps_stays_small() -> None:
    kept = kept_schedule(DIFFUSION, tuple(range(100))).alphas_cumprod
    found = Noising(DIFFUSION).timesteps
    assert found[0] == 2 and np.log(kept[found[-1]] / (1 - kept[found[-1]])) >= -4.0
    assert np.log(kept[found[-1] + 1] / (1 - kept[found[-1] + 1])) < -4.0


def test_a_row_has_all_figures() -> None:
    result = json.loads(
        '{"of": {"name": "one", "steps": 7}, "sface": 0.5, "no_face_sface": 0.015, "dlib": 0.4, "frechet": 60.04,'
        ' "recall": 0.1, "diversity": {"feature distance": 0.2, "ID distance (sface)": 0.3, "ID distance (dlib)": 0.9}}'
    )
    assert line(result) == ["one", "7", "0.500", "0.400", "1.5 %", "60.0", "0.10", "0.200", "0.300"]
    assert len(line(result)) == len(HEADS)
