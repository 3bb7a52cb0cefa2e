"""A run: interrupted and resumed it gives the same bits; refuses what does not belong; becomes a bundle."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from eager_compiler import EagerCompiler
from tiny_training import TINY_BASE, TINY_SR, face_arrays

from id3pm.config import SamplingOptions
from id3pm.errors import CheckpointError, ConfigError, InvalidInputError
from id3pm.formats import datasets as shards
from id3pm.formats.bundle import load_weights, read_bundle, verify, weights_hash, write_bundle
from id3pm.training import checkpoint
from id3pm.training.data import FaceBatches
from id3pm.training.export import TaskVector, export_bundle
from id3pm.training.initial_weights import build
from id3pm.training.loop import Trainer
from id3pm.training.optimizer import learning_rate
from id3pm.training.presets import PRESETS, TrainConfig, deviations
from id3pm.training.session import SessionOptions, train
from id3pm.unet.model import load_unet


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    shards.begin(folder, {"kind": "test", "id_vector_model": "none", "identity_dim": 8})
    shards.write_shard(folder, 0, face_arrays())
    return folder


def run(config: TrainConfig, data: Path, out: Path, **options: object) -> int:
    small = {"cpu": True, "threads": 1, "log_every": 2, "preview_faces": 2}
    return train(config, SessionOptions(data=data, out=out, **small, **options))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished")
    assert run(TINY_BASE, data, out) == 6
    return out


@pytest.fixture(scope="module")
def sr_run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sr")
    assert run(TINY_SR, data, out) == 3
    return out


def test_interrupted_and_resumed_run_ends_with_the_same_bits(data: Path, finished: Path, tmp_path: Path) -> None:
    assert run(dataclasses.replace(TINY_BASE, total_steps=2), data, tmp_path) == 2
    assert run(TINY_BASE, data, tmp_path, resume=True) == 6
    straight, resumed = checkpoint.load(finished), checkpoint.load(tmp_path)
    for part in ("model", "ema"):
        for name, tensor in getattr(straight, part).items():
            assert torch.equal(tensor, getattr(resumed, part)[name]), f"{part} {name}"
    for key, state in straight.optimizer["state"].items():
        assert torch.equal(state["exp_avg_sq"], resumed.optimizer["state"][key]["exp_avg_sq"])
    history = [(out / "history.jsonl").read_text(encoding="utf-8").splitlines() for out in (finished, tmp_path)]
    losses = [[(json.loads(line)["step"], json.loads(line)["loss"]) for line in lines] for lines in history]
    assert losses[0] == losses[1] and [step for step, _ in losses[0]] == [2, 4, 6]


def test_training_changes_weights_and_the_average_lags_behind(finished: Path) -> None:
    start, end = build(TINY_BASE).state_dict(), checkpoint.load(finished)
    moved = [name for name, tensor in end.model.items() if not torch.equal(tensor, start[name])]
    assert len(moved) == len(start)
    assert any(not torch.equal(end.ema[name], end.model[name]) for name in moved)


def test_a_run_leaves_a_sample_grid_and_a_loss_curve(finished: Path) -> None:
    assert (finished / "samples_0000006.png").read_bytes().startswith(b"\x89PNG")
    assert (finished / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_time_limit_and_sigterm_stop_with_a_checkpoint(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(TINY_BASE, data, tmp_path, max_minutes=0.0) == 0
    assert checkpoint.load(tmp_path).step == 0
    learned = learning_rate

    def interrupt(config: TrainConfig, step: int) -> float:
        if step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return learned(config, step)

    monkeypatch.setattr("id3pm.training.loop.learning_rate", interrupt)
    assert run(TINY_BASE, data, tmp_path, resume=True) == 2
    assert checkpoint.load(tmp_path).step == 2
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_resume_refuses_another_run_and_other_data(data: Path, finished: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="learning_rate=0.001"):
        run(dataclasses.replace(TINY_BASE, learning_rate=0.5), data, finished, resume=True)
    grown = tmp_path / "grown"
    shards.begin(grown, shards.describe(data))
    shards.write_shard(grown, 0, face_arrays(80))
    with pytest.raises(CheckpointError, match="57 images, given are 76"):
        run(TINY_BASE, grown, finished, resume=True)
    with pytest.raises(CheckpointError, match="train first"):
        run(TINY_BASE, data, tmp_path / "empty", resume=True)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "checkpoint.pt").write_bytes((finished / "checkpoint.pt").read_bytes())
    assert run(TINY_BASE, grown, copy, resume=True, allow_data_change=True) == 6


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt .*is damaged"):
        checkpoint.load(tmp_path)
    torch.save({"weight": torch.zeros(1)}, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt is no checkpoint of a training run"):
        checkpoint.load(tmp_path)
    torch.save({"config": {"teacher_weights_sha256": "0" * 64}}, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match=r"holds a distillation run: .*id3pm export-student exports it"):
        checkpoint.load(tmp_path)


def test_weights_that_are_no_numbers_are_neither_saved_nor_read(finished: Path, tmp_path: Path) -> None:
    good = checkpoint.load(finished)
    checkpoint.save(tmp_path, good)
    before = (tmp_path / checkpoint.FILE_NAME).read_bytes()
    name = next(iter(good.ema))
    for part in ("model", "ema"):
        broken = {**getattr(good, part), name: torch.full_like(good.ema[name], torch.nan)}
        with pytest.raises(CheckpointError, match=f"step 6: {name} holds NaN.*checkpoint before this step is kept"):
            checkpoint.save(tmp_path, dataclasses.replace(good, **{part: broken}))
    assert (tmp_path / checkpoint.FILE_NAME).read_bytes() == before
    state = torch.load(tmp_path / checkpoint.FILE_NAME, weights_only=True)
    state["ema"][name][:] = torch.inf
    torch.save(state, tmp_path / checkpoint.FILE_NAME)
    with pytest.raises(CheckpointError, match=f"{name} holds NaN or infinity"):
        checkpoint.load(tmp_path)


def test_batches_made_ahead_give_the_same_bits(data: Path, finished: Path, tmp_path: Path) -> None:
    assert run(TINY_BASE, data, tmp_path, data_threads=3) == 6
    straight, ahead = checkpoint.load(finished).model, checkpoint.load(tmp_path).model
    assert all(torch.equal(tensor, ahead[name]) for name, tensor in straight.items())


def test_a_finished_run_is_not_overwritten_by_mistake(data: Path, finished: Path) -> None:
    with pytest.raises(CheckpointError, match="holds a run already: go on with --resume"):
        run(TINY_BASE, data, finished)
    assert checkpoint.load(finished).step == 6


def test_super_resolution_trains_on_crops_and_exports_at_full_size(
    finished: Path, sr_run: Path, tmp_path: Path
) -> None:
    assert (sr_run / "full_size_0000003.png").exists()
    options = SamplingOptions(sampler="dpmpp_2m", steps=10)
    export_bundle(finished, sr_run, tmp_path / "b", name="t", licence="MIT", sampling=options, sr_sampling=options)
    verify(tmp_path / "b")
    bundle = read_bundle(tmp_path / "b")
    assert bundle.sr.image_size == 64 and bundle.base == TINY_BASE.unet and bundle.id_vector_model == "none"
    card = bundle.training_card["base"]
    assert card["steps"] == 6 and card["images_seen"] == 48
    assert "| the 64 px network | 48 |" in (tmp_path / "b/MODEL_CARD.md").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in (finished / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    assert card["losses"]["mse"] == pytest.approx(np.mean([line["mse"] for line in lines]))
    assert card["deviations_from_paper"]["ema_warmup"] is True
    ema = checkpoint.load(finished).ema
    for name, array in load_weights(tmp_path / "b", "base").items():
        np.testing.assert_allclose(array, ema[name].numpy(), atol=1e-3)
    load_unet(bundle.sr, load_weights(tmp_path / "b", "sr"))


@pytest.fixture(scope="module")
def bundle(finished: Path, sr_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of both finished runs; read-only for tests."""
    out, options = tmp_path_factory.mktemp("bundle") / "bundle", SamplingOptions()
    export_bundle(
        finished, sr_run, out, name="first", licence="MIT", sampling=options, sr_sampling=options, storage="fp32"
    )
    return out


def test_a_new_run_starts_from_the_weights_of_a_bundle_and_says_so(
    data: Path, bundle: Path, sr_run: Path, tmp_path: Path
) -> None:
    out, config = tmp_path / "second", dataclasses.replace(TINY_BASE, seed=1, total_steps=2)
    assert run(config, data, out, start_from=bundle, max_minutes=0.0) == 0
    for name, array in load_weights(bundle, "base").items():
        state = checkpoint.load(out)
        assert np.array_equal(state.model[name].numpy(), array) and np.array_equal(state.ema[name].numpy(), array)
    assert run(config, data, out, resume=True) == 2
    options = SamplingOptions()
    export_bundle(out, sr_run, tmp_path / "b2", name="second", licence="MIT", sampling=options, sr_sampling=options)
    card = read_bundle(tmp_path / "b2").training_card["base"]
    assert card["images_seen"] == 16
    assert card["started_from"] == {
        "bundle": "first",
        "weights_sha256": weights_hash(bundle, "base"),
        "images_seen": 48,
    }


def test_a_run_with_attributes_begins_as_the_bundle_without_whatever_the_attributes(
    data: Path, bundle: Path, tmp_path: Path
) -> None:
    unet = dataclasses.replace(TINY_BASE.unet, attribute_dim=7)
    config = dataclasses.replace(TINY_BASE, unet=unet, attribute_set="landmarks", seed=1)
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    add_attributes(folder)
    assert run(config, folder, tmp_path / "run", start_from=bundle, max_minutes=0.0) == 0
    state = checkpoint.load(tmp_path / "run")
    old = load_unet(TINY_BASE.unet, load_weights(bundle, "base"))
    new = load_unet(unet, {name: tensor.numpy() for name, tensor in state.ema.items()})
    rng = torch.Generator().manual_seed(0)
    x, identity = torch.randn(2, 3, 16, 16, generator=rng), torch.randn(2, 8, generator=rng)
    attributes = torch.rand(2, 7, generator=rng)
    with torch.no_grad():
        expected = old(x, torch.tensor([10, 900]), identity=identity)
        made = new(x, torch.tensor([10, 900]), identity=identity, attributes=attributes)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-6)
    assert run(config, folder, tmp_path / "run", resume=True) == TINY_BASE.total_steps
    learned = checkpoint.load(tmp_path / "run").model["attribute_embed.2.weight"]
    assert learned.abs().max() > 0  # it does not stay silent


def add_attributes(folder: Path) -> None:
    """Attributes beside the shards of a data set, as `id3pm measure-dataset` leaves them."""
    shards.begin(folder, {"attribute_set": "landmarks"}, shards.MEASURED_FILE)
    for shard in folder.glob("shard_*.npz"):
        with np.load(shard) as arrays:
            index = arrays["index"]
        attributes = np.random.default_rng(0).random((len(index), 7)).astype(np.float32)
        shards.write_measured(folder, shard, {"attributes": attributes, "index": index})


def test_a_bundle_with_other_attributes_is_refused(data: Path, bundle: Path, tmp_path: Path) -> None:
    unet = dataclasses.replace(TINY_BASE.unet, attribute_dim=11)
    other = dataclasses.replace(TINY_BASE, unet=unet, attribute_set=1)
    old = read_bundle(bundle)
    weights = {name: tensor.numpy() for name, tensor in build(other).state_dict().items()}
    made = dataclasses.replace(old, attribute_set=1, base=unet)
    write_bundle(tmp_path / "bundle", made, weights, load_weights(bundle, "sr"), storage="fp32")
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    add_attributes(folder)
    ours = dataclasses.replace(
        TINY_BASE, unet=dataclasses.replace(unet, attribute_dim=7), attribute_set="landmarks", identity_loss=0.0
    )
    with pytest.raises(ConfigError, match="has attribute set 1, this run landmarks"):
        run(ours, folder, tmp_path / "run", start_from=tmp_path / "bundle")


def test_a_stage_of_a_new_bundle_may_come_from_another_bundle(finished: Path, bundle: Path, tmp_path: Path) -> None:
    options, old = SamplingOptions(), read_bundle(bundle)
    for base, sr in ((finished, bundle), (bundle, bundle)):
        out = tmp_path / f"from-{base.name}"
        export_bundle(base, sr, out, name="n", licence="MIT", sampling=options, sr_sampling=options, storage="fp32")
        new = read_bundle(out)
        assert (new.base, new.sr, new.id_vector_model) == (old.base, old.sr, old.id_vector_model)
        assert new.training_card["sr"] == old.training_card["sr"]
        for stage in ("base", "sr"):
            assert weights_hash(out, stage) == weights_hash(bundle, stage)


def test_a_run_is_blended_with_the_bundle_that_it_started_from(
    data: Path, finished: Path, bundle: Path, tmp_path: Path
) -> None:
    out, options = tmp_path / "second", SamplingOptions()
    run(dataclasses.replace(TINY_BASE, seed=1, total_steps=3), data, out, start_from=bundle)
    given = {"licence": "MIT", "sampling": options, "sr_sampling": options, "storage": "fp32"}
    export_bundle(out, bundle, tmp_path / "blend", name="b", blend=bundle, blend_share=0.25, **given)  # type: ignore[arg-type]
    start, own, made = load_weights(bundle, "base"), checkpoint.load(out).ema, load_weights(tmp_path / "blend", "base")
    for name, array in made.items():
        np.testing.assert_allclose(array, 0.75 * start[name] + 0.25 * own[name].numpy(), atol=1e-6)
    assert "0.25 of it and 0.75" in read_bundle(tmp_path / "blend").training_card["base"]["weights"]
    with pytest.raises(ConfigError, match="the run started from weights None"):
        export_bundle(finished, bundle, tmp_path / "no", name="b", blend=bundle, **given)  # type: ignore[arg-type]


def test_what_another_bundle_learned_is_added(data: Path, bundle: Path, tmp_path: Path) -> None:
    unet = dataclasses.replace(TINY_BASE.unet, attribute_dim=7)
    config = dataclasses.replace(TINY_BASE, unet=unet, attribute_set="landmarks", seed=1, total_steps=2)
    folder, given = (
        tmp_path / "data",
        {"licence": "MIT", "sampling": SamplingOptions(), "sr_sampling": SamplingOptions()},
    )
    shutil.copytree(data, folder)
    add_attributes(folder)
    run(config, folder, tmp_path / "run", start_from=bundle)
    export_bundle(tmp_path / "run", bundle, tmp_path / "task", name="t", storage="fp32", **given)  # type: ignore[arg-type]
    run(dataclasses.replace(TINY_BASE, seed=2, total_steps=2), data, tmp_path / "on", start_from=bundle)
    export_bundle(tmp_path / "on", bundle, tmp_path / "newer", name="n", storage="fp32", **given)  # type: ignore[arg-type]
    how = {
        "name": "both",
        "storage": "fp32",
        "task": TaskVector(tmp_path / "task", bundle, 1.5),
        **given,
    }
    made = export_bundle(tmp_path / "newer", bundle, tmp_path / "both", **how)  # type: ignore[arg-type]
    both, newer, task, start = (
        load_weights(path, "base") for path in (tmp_path / "both", tmp_path / "newer", tmp_path / "task", bundle)
    )
    for name, array in both.items():
        expected = newer[name] + 1.5 * (task[name] - start[name]) if name in start else task[name]
        np.testing.assert_allclose(array, expected, atol=1e-6)
    assert made.attribute_set == "landmarks" and made.base == unet and len(both) > len(start)
    assert made.training_card["base"]["task"]["start_sha256"] == weights_hash(bundle, "base")
    with pytest.raises(ConfigError, match="another base network"):
        export_bundle(tmp_path / "both", bundle, tmp_path / "no", **how)  # type: ignore[arg-type]


def test_a_bundle_begins_at_the_mean_colour_of_a_data_set_and_so_do_its_runs(
    data: Path, bundle: Path, tmp_path: Path
) -> None:
    options = SamplingOptions()
    given = {"licence": "MIT", "sampling": options, "sr_sampling": options}
    export_bundle(bundle, bundle, tmp_path / "b", name="b", data_mean=data, **given)  # type: ignore[arg-type]
    pixels = np.concatenate([np.load(file)["images"].reshape(-1, 3) for file in sorted(data.glob("shard_*.npz"))])
    mean = read_bundle(tmp_path / "b").base_diffusion.data_mean
    assert mean is not None
    np.testing.assert_allclose(mean, pixels.mean(0) / 127.5 - 1.0, atol=1e-4)
    config = dataclasses.replace(TINY_BASE, seed=1, total_steps=1)
    run(config, data, tmp_path / "run", start_from=tmp_path / "b", max_minutes=0.0)
    assert checkpoint.load(tmp_path / "run").config.diffusion.data_mean == mean
    assert run(config, data, tmp_path / "run", resume=True) == 1
    with pytest.raises(InvalidInputError):
        export_bundle(bundle, bundle, tmp_path / "c", name="c", data_mean=tmp_path, **given)  # type: ignore[arg-type]


def test_what_a_bundle_says_of_the_norm_of_id_vectors_stays(bundle: Path, tmp_path: Path) -> None:
    raw = Path(shutil.copytree(bundle, tmp_path / "raw"))
    file, options = raw / "bundle.json", SamplingOptions()
    file.write_text(json.dumps({**json.loads(file.read_text()), "l2_normalised": False}))
    export_bundle(raw, raw, tmp_path / "n", name="n", licence="MIT", sampling=options, sr_sampling=options)
    assert read_bundle(tmp_path / "n").l2_normalised is False


def test_a_bundle_of_another_network_is_refused(data: Path, bundle: Path, tmp_path: Path) -> None:
    other = dataclasses.replace(TINY_BASE, unet=dataclasses.replace(TINY_BASE.unet, num_channels=64))
    with pytest.raises(ConfigError, match="another base network"):
        run(other, data, tmp_path / "other", start_from=bundle)
    with pytest.raises(InvalidInputError, match="--start-from"):
        run(TINY_BASE, data, tmp_path / "other", start_from=bundle, resume=True)


def test_export_refuses_swapped_runs(finished: Path, tmp_path: Path) -> None:
    options = SamplingOptions()
    with pytest.raises(ConfigError, match="'sr' run is needed"):
        export_bundle(finished, finished, tmp_path, name="t", licence="MIT", sampling=options, sr_sampling=options)


def test_learning_rate_rises_and_stays() -> None:
    rates = [learning_rate(TINY_BASE, step) for step in range(5)]
    np.testing.assert_allclose(rates, [1e-3 / 3, 2e-3 / 3, 1e-3, 1e-3, 1e-3])
    assert learning_rate(PRESETS["paper", "base"], 0) == 1e-4


def test_paper_presets_are_the_papers_table() -> None:
    base, sr = PRESETS["paper", "base"], PRESETS["paper", "sr"]
    for config, steps in ((base, 100_000), (sr, 50_000)):
        assert (config.batch_size, config.learning_rate, config.ema_rate, config.total_steps) == (
            64,
            1e-4,
            0.9999,
            steps,
        )
        assert deviations(config) == {} and not config.ema_warmup and config.min_snr_gamma is None
    assert (base.condition_dropout, sr.condition_dropout, sr.train_size) == (0.1, 0.0, 256)


def test_initial_weights_follow_from_the_seed_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    first, again = (build(TINY_BASE).state_dict() for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_identity_gain_scales_the_first_identity_layer_alone() -> None:
    plain, scaled = (build(dataclasses.replace(TINY_BASE, identity_gain=gain)).state_dict() for gain in (1.0, 3.0))
    changed = [name for name in plain if not torch.equal(plain[name], scaled[name])]
    assert changed == ["identity_embed.0.weight"]
    torch.testing.assert_close(scaled[changed[0]], 3.0 * plain[changed[0]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"condition_dropout": 1.5}, "condition_dropout=1.5"),
        ({"ema_rate": 1.0}, "ema_rate=1.0"),
        ({"train_size": 8}, "train_size=8"),
    ],
)
def test_impossible_runs_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(TINY_BASE, **changes)  # type: ignore[arg-type]


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no data set"):
        shards.load(tmp_path, "train")


def test_a_base_model_trains_on_attributes_too(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from id3pm.training.commands import train_command

    rng = np.random.default_rng(0)
    arrays = face_arrays(42)
    arrays["images"] = rng.integers(0, 256, (42, 64, 64, 3), dtype=np.uint8)
    arrays["vectors"] = arrays["flipped_vectors"] = np.full((42, 128), 128**-0.5, np.float32)
    command = ["--stage", "base", "--preset", "demo", "--data", str(tmp_path), "--out", str(tmp_path / "run"), "--cpu"]
    command += ["--precision", "no", "--identity-loss", "0", "--batch-size", "2", "--steps", "1", "--attributes"]
    shards.begin(tmp_path, {"kind": "pictures", "attribute_set": None})
    shards.write_shard(tmp_path, 0, arrays)
    refused = CliRunner().invoke(train_command, command)
    assert isinstance(refused.exception, InvalidInputError) and "--attribute-set" in str(refused.exception)
    (tmp_path / shards.DESCRIPTION_FILE).unlink()
    shards.begin(tmp_path, {"kind": "pictures", "attribute_set": 1})
    shards.write_shard(tmp_path, 0, {**arrays, "attributes": rng.random((42, 11)).astype(np.float32)})
    result = CliRunner().invoke(train_command, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert checkpoint.load(tmp_path / "run").config.unet.attribute_dim == 11


@pytest.mark.parametrize(
    "changes",
    [
        {"accumulation": 4},
        {"gradient_checkpointing": True},
        {"channels_last": False},
        {"fused_adamw": False},
        {"foreach_ema": False},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_how_a_step_is_computed_does_not_change_it(data: Path, tmp_path: Path, changes: dict[str, object]) -> None:
    plain = dataclasses.replace(TINY_BASE, unet=dataclasses.replace(TINY_BASE.unet, dropout=0.0), total_steps=3)
    run(plain, data, tmp_path / "plain")
    run(dataclasses.replace(plain, **changes), data, tmp_path / "other")  # type: ignore[arg-type]
    straight, other = (checkpoint.load(tmp_path / name) for name in ("plain", "other"))
    for part in ("model", "ema"):
        assert difference(getattr(other, part), getattr(straight, part), plain) < 5e-3, part
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "history.jsonl").read_text().splitlines()]
        for name in ("plain", "other")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert run(dataclasses.replace(plain, total_steps=4), data, tmp_path / "other", resume=True) == 4
    assert not set(changes) & set(deviations(dataclasses.replace(plain, **changes)))  # type: ignore[arg-type]


def test_a_compiled_run_is_the_same_and_may_be_resumed_without(
    data: Path, tmp_path: Path, eager_compiler: EagerCompiler
) -> None:
    plain = dataclasses.replace(TINY_BASE, unet=dataclasses.replace(TINY_BASE.unet, dropout=0.0), total_steps=2)
    run(plain, data, tmp_path / "plain")
    AcceleratorState._reset_state(reset_partial_state=True)  # accelerate keeps the compiler for the whole process
    try:
        run(plain, data, tmp_path / "compiled", compile=True)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    assert [call.graphs > 0 for call in eager_compiler.calls] == [True]
    expected, made = (checkpoint.load(tmp_path / name).model for name in ("plain", "compiled"))
    assert list(made) == list(expected), "no names of the wrapper"
    for name, tensor in expected.items():
        torch.testing.assert_close(made[name], tensor, rtol=1e-3, atol=2e-5, msg=name)
    assert run(dataclasses.replace(plain, total_steps=3), data, tmp_path / "compiled", resume=True) == 3


def difference(made: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], config: TrainConfig) -> float:
    """L2 norm of the difference, relative to what training has changed: AdamW divides rounding by small gradients."""
    start = build(config).state_dict()
    apart, changed = (
        torch.cat([(weights[name] - from_[name]).flatten() for name in start]).norm()
        for weights, from_ in ((made, expected), (expected, start))
    )
    return float(apart / changed)


SETTINGS = {"channels_last": False, "fused_adamw": False, "foreach_ema": False}


def test_settings_of_a_step_are_what_the_run_computes_with(data: Path, tmp_path: Path) -> None:
    for flag in (True, False):
        config = dataclasses.replace(TINY_BASE, **dict.fromkeys(SETTINGS, flag))  # type: ignore[arg-type]
        trainer = Trainer(config, FaceBatches(face_arrays(), config), tmp_path, {}, Accelerator(cpu=True))
        weight = trainer.unet.get_parameter("out.2.weight")
        assert weight.is_contiguous(memory_format=torch.channels_last) == flag
        assert trainer._optimizer.param_groups[0]["fused"] == (True if flag else None)
        assert trainer._ema.foreach == flag


def test_a_run_goes_on_with_other_kernels_and_another_memory_format(data: Path, tmp_path: Path) -> None:
    """A fused kernel reads weights and moments in the order of their memory: both must lie there alike."""
    plain = dataclasses.replace(TINY_BASE, unet=dataclasses.replace(TINY_BASE.unet, dropout=0.0))
    run(plain, data, tmp_path / "straight")
    for first, then in (({}, SETTINGS), (SETTINGS, {})):
        out = tmp_path / f"{len(first)}-{len(then)}"
        run(dataclasses.replace(plain, total_steps=3, **first), data, out)  # type: ignore[arg-type]
        run(dataclasses.replace(plain, **then), data, out, resume=True)  # type: ignore[arg-type]
        straight, made = (checkpoint.load(folder) for folder in (tmp_path / "straight", out))
        assert made.optimizer["param_groups"][0]["fused"] == (None if then else True), "its own, not the checkpoint's"
        assert difference(made.model, straight.model, plain) < 5e-3, "0.35 where moments lie otherwise than weights"


def test_passes_must_divide_the_batch() -> None:
    with pytest.raises(ConfigError, match="accumulation=3: must divide batch_size=8"):
        dataclasses.replace(TINY_BASE, accumulation=3)
