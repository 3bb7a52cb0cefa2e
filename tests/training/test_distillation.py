"""Distillation: a student begins as its teacher, learns its guidance, resumes, and is a bundle."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from click.testing import CliRunner
from tiny_distillation import config_of, write_data
from tiny_engines import random_unet
from tiny_teacher import BASE, DIFFUSION, FAST, SR, write_teacher
from tiny_training import face_arrays

from id3pm.config import SamplingOptions, UNetConfig
from id3pm.diffusion.guidance import null_identity
from id3pm.diffusion.noise import STAGE_BASE, STAGE_SR, noise
from id3pm.diffusion.plans import plan
from id3pm.diffusion.samplers import sample
from id3pm.diffusion.schedule import betas
from id3pm.engines.torch_engine import TorchEngine, UNetEngine
from id3pm.errors import CheckpointError, ConfigError, InvalidInputError, InvalidOptionError
from id3pm.formats import datasets as shards
from id3pm.formats.arrays import read_arrays
from id3pm.formats.bundle import load_weights, read_bundle, verify, weights_hash, write_bundle
from id3pm.formats.images import to_uint8
from id3pm.formats.model_card import card_text, is_current
from id3pm.sampling.request import SampleRequest
from id3pm.sampling.scheduler import StepScheduler
from id3pm.sampling.wait_all import collect
from id3pm.training.distillation import commands
from id3pm.training.distillation.config import DistillConfig, student_network
from id3pm.training.distillation.estimate import estimate
from id3pm.training.distillation.export import export_student
from id3pm.training.distillation.loop import load
from id3pm.training.distillation.options import DistillOptions
from id3pm.training.distillation.pairs import KIND, PairBatch, pairs_file
from id3pm.training.distillation.session import distill
from id3pm.training.distillation.student import StudentSteps, fit_last_layer, from_teacher
from id3pm.training.distillation.teacher import Teacher
from id3pm.unet.model import UNet, load_unet


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    shards.begin(folder, {"kind": "test", "id_vector_model": "none", "identity_dim": 8})
    arrays = face_arrays()
    arrays["images"] = np.repeat(np.repeat(arrays["images"], 2, axis=1), 2, axis=2)
    shards.write_shard(folder, 0, arrays)
    return folder


@pytest.fixture(scope="module")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("small_data"))


def run(config: DistillConfig, teacher: Path, data: Path, out: Path, **options: object) -> int:
    more = {"repository": out / "none", "cpu": True, "threads": 1, "log_every": 2, **options}
    return distill(config, DistillOptions(teacher=teacher, out=out, data=data, **more))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def finished(teacher: Path, small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished")
    assert run(config_of(teacher), teacher, small_data, out) == 4
    return out


def guided(config: DistillConfig, teacher: Path, x: torch.Tensor, places: list[int], scales: list[float]) -> np.ndarray:
    made = Teacher(TorchEngine(teacher, "base"), DIFFUSION, FAST)
    timesteps, numbers = config.diffusion.student_timesteps or (), np.array(scales, np.float32)
    return made.guided(x.numpy(), timesteps, np.array(places), numbers, {"identity": vectors(len(places)).numpy()})


def vectors(count: int) -> torch.Tensor:
    drawn = torch.randn((count, 8), generator=torch.Generator().manual_seed(1))
    return drawn / drawn.norm(dim=1, keepdim=True)


def test_a_student_begins_as_its_teacher_whatever_the_guidance_scale(teacher: Path) -> None:
    student = from_teacher(config_of(teacher), load_weights(teacher, "base")).eval()
    network = load_unet(BASE, load_weights(teacher, "base"))
    x, t = torch.randn(3, 3, 16, 16), torch.tensor([10.0, 50.0, 90.0])
    with torch.no_grad():
        expected = network(x, t, identity=vectors(3))[:, :3]
        given = student(x, t, identity=vectors(3), guidance=torch.tensor([1.0, 2.0, 3.0]))
    assert torch.allclose(given, expected, atol=1e-6)


def test_the_guided_target_is_what_two_evaluations_of_the_teacher_give(teacher: Path) -> None:
    config = config_of(teacher)
    x, scales = torch.randn(2, 3, 16, 16), [1.0, 2.5]
    found = guided(config, teacher, x, [0, 1], scales)
    network = load_unet(BASE, load_weights(teacher, "base"))
    alphas = np.cos((np.arange(101) / 100 + 0.008) / 1.008 * np.pi / 2) ** 2  # Nichol and Dhariwal (2021), eq. 17
    low, high = config.diffusion.student_timesteps or ()
    for row, t in enumerate((high, low)):
        abar = alphas[t + 1] / alphas[0]
        with torch.no_grad():
            inputs = x[row : row + 1], torch.tensor([float(t)])
            given, null = network(*inputs, identity=vectors(2)[row : row + 1]), network(*inputs)
        eps = (null + scales[row] * (given - null))[:, :3]
        x0 = ((x[row] - (1 - abar) ** 0.5 * eps) / abar**0.5).clamp(-1, 1)
        assert np.allclose(found[row], x0[0].numpy(), atol=1e-3)


def test_the_target_of_the_last_step_is_what_the_teacher_makes_of_its_input(teacher: Path) -> None:
    made = Teacher(TorchEngine(teacher, "base"), DIFFUSION, FAST)
    x, scales, timestep = torch.randn(2, 3, 16, 16), np.array([1.0, 2.5], np.float32), 60
    found = made.finished(x.numpy(), timestep, 3, scales, {"identity": vectors(2).numpy()})
    network = load_unet(BASE, load_weights(teacher, "base"))
    kept = np.cumprod(1 - betas(DIFFUSION))
    log_snr = np.log(kept / (1 - kept))
    visited = [int(np.abs(log_snr - value).argmin()) for value in np.linspace(log_snr[60], log_snr[0], 4)[:3]]
    image = x
    for t, after in zip(visited, [*visited[1:], None], strict=True):  # Song et al. (2020), eq. 12 with sigma 0
        with torch.no_grad():
            times = torch.full((2,), float(t))
            given, null = network(image, times, identity=vectors(2))[:, :3], network(image, times)[:, :3]
        eps = null + torch.from_numpy(scales).view(-1, 1, 1, 1) * (given - null)
        x0 = ((image - (1 - kept[t]) ** 0.5 * eps) / kept[t] ** 0.5).clamp(-1, 1)
        eps = (image - kept[t] ** 0.5 * x0) / (1 - kept[t]) ** 0.5
        image = x0 if after is None else kept[after] ** 0.5 * x0 + (1 - kept[after]) ** 0.5 * eps
    assert np.allclose(found, image.numpy(), atol=1e-3)


def test_a_student_learns_the_guidance_of_its_teacher(teacher: Path, small_data: Path, tmp_path: Path) -> None:
    # Much noise at the last step: where little is left, the guidance of a random network is hard to see in 40 steps.
    noisy = dataclasses.replace(config_of(teacher).diffusion, student_timesteps=(62, 87))
    config = config_of(
        teacher, diffusion=noisy, critic=0.0, total_steps=40, learning_rate=1e-3, ema_rate=0.9, batch_size=8
    )

    def error(unet: UNet) -> float:
        x, scales = torch.randn((16, 3, 16, 16), generator=torch.Generator().manual_seed(3)), torch.full((16,), 3.0)
        given = {"identity": vectors(16), "guidance": scales}
        steps, places = StudentSteps(config.diffusion, torch.device("cpu")), torch.ones(16, dtype=torch.int64)
        with torch.no_grad():
            made = steps.x0(x, unet(x, steps.at("timestep", places), **given), places)
        return float(np.abs(made.numpy() - guided(config, teacher, x, [1] * 16, [3.0] * 16)).mean())

    run(config, teacher, small_data, tmp_path)
    state, _ = load(tmp_path)
    learned = UNet(config.unet).eval()
    learned.load_state_dict(state["ema"])
    assert error(learned) < 0.7 * error(from_teacher(config, load_weights(teacher, "base")).eval())


def test_in_half_precision_the_students_convolutions_compute_in_it_and_all_weights_learn(
    teacher: Path, small_data: Path, tmp_path: Path
) -> None:
    learning = set()

    def note(layer: torch.nn.Module, _: object, output: torch.Tensor) -> None:
        if isinstance(layer, torch.nn.Conv2d) and output.requires_grad:
            learning.add((layer.out_channels, output.dtype))

    config = config_of(teacher, critic=0.0, total_steps=3, precision="bf16")
    AcceleratorState._reset_state(reset_partial_state=True)  # the precision is the process's otherwise
    hook = torch.nn.modules.module.register_module_forward_hook(note)
    try:
        run(config, teacher, small_data, tmp_path)
    finally:
        hook.remove()
        AcceleratorState._reset_state(reset_partial_state=True)
    last = config.unet.out_channels
    assert {dtype for channels, dtype in learning if channels == last} == {torch.float32}
    assert {dtype for channels, dtype in learning if channels != last} == {torch.bfloat16}
    started, ended = from_teacher(config, load_weights(teacher, "base")).state_dict(), load(tmp_path)[0]["model"]
    assert [name for name, tensor in ended.items() if torch.equal(tensor, started[name])] == []


def test_a_run_that_was_interrupted_ends_with_the_same_bits(
    teacher: Path, small_data: Path, finished: Path, tmp_path: Path
) -> None:
    run(config_of(teacher, total_steps=2), teacher, small_data, tmp_path)
    assert run(config_of(teacher), teacher, small_data, tmp_path, resume=True) == 4
    straight, resumed = load(finished)[0], load(tmp_path)[0]
    for part in ("model", "ema", "critic"):
        assert all(torch.equal(value, resumed[part][name]) for name, value in straight[part].items()), part


def test_a_stopped_run_keeps_the_teachers_results(teacher: Path, small_data: Path, tmp_path: Path) -> None:
    run(config_of(teacher, total_steps=1), teacher, small_data, tmp_path)
    file = pairs_file(tmp_path / "pairs", 0)
    before = file.stat().st_mtime_ns
    run(config_of(teacher, total_steps=2), teacher, small_data, tmp_path, resume=True)
    assert file.stat().st_mtime_ns == before
    with pytest.raises(CheckpointError, match="teacher_steps=2, this run has 3"):
        run(config_of(teacher, teacher_steps=3), teacher, small_data, tmp_path, resume=True)


def test_a_batch_that_does_not_fit_is_refused_before_the_teacher_works(
    teacher: Path, small_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="^batch_size=6: must be a multiple of 4 for each of 1 processes$"):
        run(config_of(teacher, batch_size=6), teacher, small_data, tmp_path)
    assert not (tmp_path / "pairs").exists()


def test_the_results_are_the_teachers_own_images(teacher: Path, finished: Path) -> None:
    _, arrays = read_arrays(pairs_file(finished / "pairs", 0), KIND)
    engine = TorchEngine(teacher, "base")
    shape, row = (3, 16, 16), 5
    seed, scale, vector = int(arrays["seeds"][row]), float(arrays["scales"][row]), arrays["identity"][row]

    def model(x: np.ndarray, t: np.ndarray, rows: np.ndarray, conditional: np.ndarray) -> np.ndarray:
        given = np.where(conditional[:, None], vector, null_identity(1, 8)).astype(np.float32)
        return engine.run({"x": x, "timesteps": t, "identity": given})  # type: ignore[no-any-return]

    how = plan(DIFFUSION, dataclasses.replace(FAST, steps=2, guidance_scale=scale), True)
    start = noise(seed, STAGE_BASE, 0, shape)[None]
    image = sample(model, start, [how], lambda _, draw: noise(seed, STAGE_BASE, draw, shape))
    assert np.abs(to_uint8(image)[0].astype(int) - arrays["results"][row]).max() <= 1


def test_the_last_layer_of_a_student_of_v_is_fitted_to_the_results() -> None:
    config = UNetConfig(
        image_size=16, num_channels=32, num_res_blocks=1, channel_mult=(1,), attention_resolutions=(), learn_sigma=False
    )
    diffusion = dataclasses.replace(DIFFUSION, prediction="v", student_timesteps=(80,))
    unet, steps = random_unet(config), StudentSteps(diffusion, torch.device("cpu"))
    batch = PairBatch(
        noises=torch.randn(1, 8, 3, 16, 16),
        results=torch.linspace(-1, 1, 3).view(1, 3, 1, 1).expand(8, 3, 16, 16),
        places=torch.zeros(8, dtype=torch.int64),
        own=torch.zeros(8, dtype=torch.bool),
        conditions={},
    )

    def error() -> float:
        with torch.no_grad():
            output = unet(batch.noises[0], steps.at("timestep", batch.places))
        return float((steps.x0(batch.noises[0], output, batch.places) - batch.results).abs().mean())

    before = error()
    fit_last_layer(unet, steps, [batch])
    assert error() < 0.1 * before


def test_a_student_is_a_bundle_whose_card_names_the_teacher(teacher: Path, finished: Path, tmp_path: Path) -> None:
    export_student(teacher, finished, None, tmp_path, name="tiny-student")
    bundle = verify(tmp_path)
    assert bundle.sampling == SamplingOptions(sampler="student", steps=2, guidance_scale=2.0, dynamic_threshold=0.0)
    assert bundle.training_card["base"]["teacher"] == {
        "bundle": "tiny-teacher",
        "weights_sha256": weights_hash(teacher, "base"),
    }
    assert (bundle.sr, bundle.sr_sampling) == (read_bundle(teacher).sr, read_bundle(teacher).sr_sampling)
    assert is_current(tmp_path)
    assert f"student of bundle tiny-teacher, weights `{weights_hash(teacher, 'base')[:12]}`" in card_text(tmp_path)
    with pytest.raises(ConfigError, match="is a student already"):
        student_network(bundle, "base", 2, (1.0, 3.0))
    with pytest.raises(ConfigError, match="a 'sr' run is needed"):
        export_student(teacher, None, finished, tmp_path / "other", name="other")
    with pytest.raises(InvalidInputError, match="teacher's folder"):
        export_student(teacher, finished, None, teacher, name="other")


def test_a_stage_of_an_earlier_student_is_kept(
    teacher: Path, student: Path, finished: Path, data: Path, tmp_path: Path
) -> None:
    run(config_of(teacher, stage="sr", steps=1, total_steps=1), teacher, data, tmp_path / "sr")
    export_student(teacher, student, tmp_path / "sr", tmp_path / "both", name="both")
    export_student(teacher, finished, tmp_path / "both", tmp_path / "again", name="again")
    both, again = verify(tmp_path / "both"), verify(tmp_path / "again")
    assert both.base.guidance_range is not None and both.sr_diffusion.student_start == "low_res"
    assert weights_hash(tmp_path / "again", "sr") == weights_hash(tmp_path / "both", "sr")
    assert again.sr_sampling == both.sr_sampling
    assert again.training_card["sr"] == both.training_card["sr"]
    with pytest.raises(ConfigError, match="its sr stage is no student; leave --sr out"):
        export_student(teacher, finished, student, tmp_path / "other", name="other")
    card = {**both.training_card, "sr": {"teacher": {"bundle": "x", "weights_sha256": "0" * 64}}}
    weights = [load_weights(tmp_path / "both", stage) for stage in ("base", "sr")]
    write_bundle(tmp_path / "foreign", dataclasses.replace(both, training_card=card), *weights)
    with pytest.raises(ConfigError, match="learned from weights 000000000000, the sr stage of"):
        export_student(teacher, finished, tmp_path / "foreign", tmp_path / "other", name="other")
    assert not (tmp_path / "other").exists()


def test_a_student_goes_on_where_an_earlier_one_ended(
    teacher: Path, small_data: Path, student: Path, tmp_path: Path
) -> None:
    config = config_of(teacher)
    with pytest.raises(InvalidInputError, match="leave --start-from out"):
        run(config, teacher, small_data, tmp_path, resume=True, start_from=student)
    with pytest.raises(ConfigError, match=r"has prediction='eps', this run has 'v'"):
        run(config_of(teacher, steps=1), teacher, small_data, tmp_path / "other", start_from=student)
    assert not (tmp_path / "other").exists()
    assert run(config, teacher, small_data, tmp_path / "run", start_from=student, max_minutes=0.0) == 0
    state, _ = load(tmp_path / "run")
    started = load_weights(student, "base")
    assert all(np.array_equal(value, started[name]) for name, value in state["model"].items())
    run(config, teacher, small_data, tmp_path / "run", resume=True)
    export_student(teacher, tmp_path / "run", None, tmp_path / "bundle", name="further")
    assert (
        read_bundle(tmp_path / "bundle").training_card["base"]["distillation"]["start_from"]
        == (weights_hash(student, "base")[:12])
    )


def test_a_super_resolution_student_of_one_evaluation(teacher: Path, data: Path, tmp_path: Path) -> None:
    config = config_of(teacher, "sr", 1)
    assert run(config, teacher, data, tmp_path / "run") == 4
    export_student(teacher, None, tmp_path / "run", tmp_path / "bundle", name="student")
    bundle = verify(tmp_path / "bundle")
    assert (bundle.sr_diffusion.prediction, bundle.sr_diffusion.student_start) == ("eps", "low_res")
    assert bundle.sr_sampling.steps == 1
    assert bundle.sr_sampling.consistency == 1.0


def test_the_service_starts_super_resolution_as_the_reference_loop_does(teacher: Path) -> None:
    _, diffusion = student_network(read_bundle(teacher), "sr", 2, (1.0, 3.0))
    engine = UNetEngine(random_unet(dataclasses.replace(SR, learn_sigma=False)), max_batch=1)
    how = SamplingOptions(sampler="student", steps=2, guidance_scale=1.0, dynamic_threshold=0.0, consistency=1.0)
    low_res, shape = np.linspace(-1, 1, 3 * 16 * 16, dtype=np.float32).reshape(3, 16, 16), (3, 32, 32)

    def model(x: np.ndarray, t: np.ndarray, rows: np.ndarray, conditional: np.ndarray) -> np.ndarray:
        return engine.run({"x": x, "timesteps": t, "low_res": low_res[None]})

    start = noise(5, STAGE_SR, 0, shape)[None]
    steps = [plan(diffusion, how, False)]
    expected = to_uint8(sample(model, start, steps, lambda _, draw: noise(5, STAGE_SR, draw, shape), low_res[None]))
    scheduler = StepScheduler(engine, diffusion, STAGE_SR)
    asked = SampleRequest(id="0", seed=5, options=how, low_res=low_res)
    assert np.array_equal(images(scheduler, [asked])[0], expected[0])
    scheduler.close()


@pytest.fixture(scope="module")
def student(teacher: Path, finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("student")
    export_student(teacher, finished, None, folder, name="tiny-student")
    return folder


def request(number: int, **changes: object) -> SampleRequest:
    how = SamplingOptions(sampler="student", **{"steps": 2, "guidance_scale": 1.5, **changes})  # type: ignore[arg-type]
    return SampleRequest(id=str(number), seed=number, options=how, identity=vectors(4)[number].numpy())


def images(scheduler: StepScheduler, requests: list[SampleRequest]) -> list[np.ndarray]:
    return [sample.image for sample in collect(requests, scheduler.submit, scheduler.cancel)]


@pytest.fixture(scope="module")
def scheduler(student: Path) -> Iterator[StepScheduler]:
    bundle = read_bundle(student)
    # Random weights throughout: after four optimiser steps the scale hardly shows.
    engine = UNetEngine(random_unet(bundle.base), max_batch=1)
    scheduler = StepScheduler(engine, bundle.base_diffusion, STAGE_BASE, max_rows=4)
    yield scheduler
    scheduler.close()


def test_a_student_makes_the_same_image_alone_and_among_others(scheduler: StepScheduler) -> None:
    mixed = [request(0), request(1, guidance_scale=3.0), request(2, steps=1)]
    together = images(scheduler, mixed)
    for one, image in zip(mixed, together, strict=True):
        again = dataclasses.replace(one, id=f"{one.id} again")
        assert np.array_equal(images(scheduler, [again])[0], image)


def test_the_guidance_scale_reaches_the_network(scheduler: StepScheduler) -> None:
    low, high = images(scheduler, [request(3), dataclasses.replace(request(3, guidance_scale=3.0), id="high")])
    assert not np.array_equal(low, high)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sampler": "ddim"}, "sampler='ddim': this bundle is a student"),
        ({"steps": 3}, "steps=3: this bundle is a student of 2"),
        ({"guidance_scale": 4.0}, r"guidance_scale=4.0: this student was taught 1 .. 3"),
        ({"spacing": "logsnr"}, "spacing='logsnr'"),
        ({"guidance_low": 10}, "guidance_low=10"),
        ({"guidance_high": 500}, "guidance_high=500"),
    ],
)
def test_what_a_student_cannot_honour_is_refused_by_name(
    scheduler: StepScheduler, changes: dict[str, object], words: str
) -> None:
    how = dataclasses.replace(request(0).options, **changes)
    with pytest.raises(InvalidOptionError, match=words):
        scheduler.submit(dataclasses.replace(request(0), options=how), lambda outcome: None)


def test_a_teacher_refuses_the_sampler_of_students(teacher: Path) -> None:
    with pytest.raises(InvalidOptionError, match="this bundle is no student"):
        plan(read_bundle(teacher).base_diffusion, SamplingOptions(sampler="student", steps=2), True)


@pytest.mark.parametrize("stage", ["base", "sr"])
def test_the_command_without_options_trains_by_the_defaults(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    asked: list[DistillConfig] = []
    monkeypatch.setattr(commands, "distill", lambda config, options: asked.append(config) or 0)
    given = ["--teacher", str(teacher), "--stage", stage, "--out", str(tmp_path), "--stream", "1"]
    result = CliRunner().invoke(commands.distill_command, given, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    (config,) = asked
    named = config_of(teacher, stage)
    for name in ("pairs", "teacher_steps", "target_steps", "own_share", "learning_rate", "ema_rate", "critic"):
        assert getattr(config, name) == getattr(DistillConfig, name), name
    assert config.identity_loss == (0.0 if stage == "sr" else DistillConfig.identity_loss)
    assert (config.unet, config.diffusion) == (named.unet, named.diffusion)


@pytest.mark.parametrize(("both", "named"), [(True, "both are given"), (False, "neither is given")])
def test_one_source_of_id_vectors_is_asked_for(
    teacher: Path, small_data: Path, tmp_path: Path, both: bool, named: str
) -> None:
    options = DistillOptions(
        teacher=teacher, out=tmp_path, data=small_data if both else None, stream=1 if both else None, cpu=True
    )
    with pytest.raises(InvalidInputError, match=named):
        distill(config_of(teacher), options)


def test_the_estimate_counts_the_network(teacher: Path) -> None:
    config = config_of(teacher)
    found = estimate(config, torch.device("cpu"))
    assert found.parameters == sum(parameter.numel() for parameter in UNet(config.unet).parameters())
    first = 2 * 16 * 16 * 32 * 3 * 9 / 1e12  # multiplications and additions of the first convolution
    assert first < found.teraflops < 1000 * first
    assert found.evaluation_s > 0
    assert found.pairs_s == pytest.approx(32 * 2 * 2 * found.evaluation_s)
