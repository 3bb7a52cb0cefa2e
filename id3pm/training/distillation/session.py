"""One session of distillation: the teacher's results, then the student, with checkpoints and pictures on the way."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from tqdm import tqdm

from id3pm.attributes import FREE_SETS
from id3pm.config import SamplingOptions, to_json
from id3pm.engines.arrays import HOST
from id3pm.engines.base import Engine, load_engine
from id3pm.engines.manifest import MANIFEST_NAME, read_manifest
from id3pm.engines.torch_engine import TorchEngine
from id3pm.errors import ConfigError, InvalidInputError
from id3pm.face.stage import FaceStage
from id3pm.formats import datasets as shards
from id3pm.formats.bundle import Bundle, load_weights, read_bundle, weights_hash
from id3pm.training import checkpoint, preview
from id3pm.training.batch import Batches
from id3pm.training.data import make_batches
from id3pm.training.distillation.config import DistillConfig
from id3pm.training.distillation.critic import Critic
from id3pm.training.distillation.loop import Distiller
from id3pm.training.distillation.losses import StudentLosses
from id3pm.training.distillation.pairs import (
    ROWS_PER_EARLIER,
    SHARD,
    PairBatch,
    PairMaker,
    Pairs,
    files_of,
    pairs_file,
)
from id3pm.training.distillation.student import fit_last_layer, from_teacher, require_same_network
from id3pm.training.distillation.teacher import Teacher
from id3pm.training.history import HISTORY_FILE, cut_history
from id3pm.training.identity_loss import IdentityLoss
from id3pm.training.presets import TrainConfig
from id3pm.training.session import hardware
from id3pm.training.stepped_run import Losses
from id3pm.training.stop_signal import StopSignal
from id3pm.training.stream import stream_source
from id3pm.unet.model import UNet, load_unet

PAIRS_FOLDER = "pairs"
FITTED, FITTED_ROWS = 8, 8  # batches and rows of each for the last layer
PREVIEW_FACES = 8
ENGINES = {"base": "denoiser_64", "sr": "super_resolution"}
TEACHER_BATCH = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistillOptions:
    """Options of one session.

    Attributes:
        teacher: The teacher's bundle.
        out: Folder of the run.
        data: Data set whose ID vectors (or images, for super-resolution) the teacher is given; `None` with a stream.
        stream: Seed of generated people instead; see `id3pm.training.stream`.
        faces: Face engine folder.
        repository: Model repository: an engine of the teacher's there makes its results, which is faster.
        resume: Go on from the run's checkpoint.
        start_from: A student's bundle whose weights a new run starts from, instead of the teacher's.
        max_minutes: Stop with a checkpoint after this long, counted from the first optimiser step; `None` for no limit.
        save_minutes: Time between checkpoints (with pictures).
        log_every: Steps per line of the history.
        threads: CPU threads of each process; `None` for PyTorch's choice.
        cpu: Train on the CPU even where there is a GPU.
    """

    teacher: Path
    out: Path
    data: Path | None = None
    stream: int | None = None
    faces: Path = Path("triton_repo/face_embedding/1/engine")
    repository: Path = Path("triton_repo")
    resume: bool = False
    start_from: Path | None = None
    max_minutes: float | None = None
    save_minutes: float = 10.0
    log_every: int = 20
    threads: int | None = None
    cpu: bool = False


def distill(config: DistillConfig, options: DistillOptions) -> int:
    """Makes the teacher's results that are missing, then trains; always ends with a checkpoint.

    Returns:
        Optimiser steps done in the run so far.

    Raises:
        InvalidInputError: Neither data nor stream, or they do not fit the teacher; or both `resume` and `start_from`.
        ConfigError: A batch that the processes cannot share.
        BundleError, ConfigError: `start_from` cannot be read, or is another network.
        CheckpointError: The folder holds another run.
        EngineError: The face engine folder is not usable.
    """
    if options.resume and options.start_from is not None:
        raise InvalidInputError("--resume goes on from the run's own checkpoint: leave --start-from out")
    if not options.resume:
        checkpoint.require_none(options.out)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    accelerator = Accelerator(cpu=options.cpu, mixed_precision=config.precision)
    _check_batch(config, accelerator.num_processes)
    bundle = read_bundle(options.teacher)
    if options.start_from is not None:
        require_same_network(config, read_bundle(options.start_from))
    with StopSignal() as stopped:
        made = _pairs(config, options, bundle, accelerator, stopped)
        if made is None:
            return 0
        pairs, teacher = made
        distiller = _distiller(config, options, bundle, pairs, teacher, accelerator)
        if options.resume and (options.out / checkpoint.FILE_NAME).exists():
            distiller.resume()
        started = time.monotonic()
        deadline = float("inf") if options.max_minutes is None else started + 60 * options.max_minutes
        _steps(distiller, pairs, options, lambda: stopped() or time.monotonic() >= deadline)
        teacher.close()
    return distiller.step


def _check_batch(config: DistillConfig, processes: int) -> None:
    """Before the teacher makes its results, which may take hours."""
    rows = ROWS_PER_EARLIER if config.steps > 1 else 1
    if config.batch_size % (rows * processes):
        raise ConfigError(
            f"batch_size={config.batch_size}: must be a multiple of {rows} for each of {processes} processes"
        )


def _pairs(
    config: DistillConfig,
    options: DistillOptions,
    bundle: Bundle,
    accelerator: Accelerator,
    should_stop: Callable[[], bool],
) -> tuple[Pairs, Teacher] | None:
    """All pairs of the run, and the teacher; `None` where it was stopped before."""
    first = config.stage == "base"
    sampling, diffusion = (
        (bundle.sampling, bundle.base_diffusion) if first else (bundle.sr_sampling, bundle.sr_diffusion)
    )
    engine = _engine(config, options, accelerator)
    teacher = Teacher(engine, diffusion, dataclasses.replace(sampling, steps=config.teacher_steps))
    source, about = _source(config, options, bundle)
    maker = PairMaker(
        config=config,
        folder=options.out / PAIRS_FOLDER,
        teacher=teacher,
        source=source,
        description={"source": about, **_description(config, sampling)},
    )
    with tqdm(
        total=files_of(config.pairs) * SHARD,
        unit="pair",
        desc="teacher",
        disable=not accelerator.is_main_process,
    ) as bar:
        world = accelerator.num_processes
        maker.make(accelerator.process_index, world, lambda count: bar.update(count * world), should_stop)
    accelerator.wait_for_everyone()
    if not all(pairs_file(maker.folder, number).exists() for number in range(files_of(config.pairs))):
        return None
    return Pairs(maker.folder, config), teacher


def _description(config: DistillConfig, sampling: SamplingOptions) -> dict[str, Any]:
    """What the teacher's results depend on, beside their source."""
    names = ("teacher_weights_sha256", "train_size", "teacher_steps", "altered_vectors", "seed")
    return {
        **{name: getattr(config, name) for name in names},
        "guidance_range": None if config.unet.guidance_range is None else list(config.unet.guidance_range),
        "sampling": to_json(sampling),
    }


def _engine(config: DistillConfig, options: DistillOptions, accelerator: Accelerator) -> Engine:
    """The teacher's engine in the repository if there is one for this host, else its PyTorch network."""
    folder = options.repository / ENGINES[config.stage] / "1" / "engine"
    if accelerator.device.type == "cpu" and (folder / MANIFEST_NAME).exists():
        manifest = read_manifest(folder)
        fits = manifest.bundle.weights_sha256 == config.teacher_weights_sha256
        if fits and manifest.device == "cpu" and manifest.unet.image_size == config.train_size:
            return load_engine(folder, threads=options.threads)
    device = accelerator.device
    return TorchEngine(
        options.teacher,
        config.stage,
        TEACHER_BATCH,
        str(device),
        config.train_size,
        "bf16" if device.type == "cuda" else "fp32",
        HOST,
    )


def _source(config: DistillConfig, options: DistillOptions, bundle: Bundle) -> tuple[Batches, dict[str, Any]]:
    """Conditions and images for the teacher, `SHARD` at a time, and a description of them.

    Raises:
        InvalidInputError: Both or none of data and stream are given, or they do not fit the teacher.
    """
    first = config.stage == "base"
    conditional = first and config.unet.identity_dim is not None
    plain = TrainConfig(
        unet=bundle.base if first else bundle.sr,
        diffusion=bundle.base_diffusion if first else bundle.sr_diffusion,
        train_size=config.train_size,
        batch_size=SHARD,
        condition_dropout=0.0,
        field_dropout=0.5 if first and bundle.attribute_set in FREE_SETS else 0.0,
        flip=True,
        photo_share=0.0 if first else 0.5,
        identity_loss=config.identity_loss if conditional else 0.0,
        altered_vectors=0.0,
        attribute_set=bundle.attribute_set if first else None,
        seed=config.seed,
    )
    if (options.data is None) == (options.stream is None):
        raise InvalidInputError("give --data or --stream: where the teacher's ID vectors come from")
    if options.stream is not None:
        if not first or bundle.attribute_set is not None:
            raise InvalidInputError("--stream is for --stage base of a bundle without attributes; give --data")
        return stream_source(options.stream, options.faces, plain), {"kind": "stream", "seed": options.stream}
    assert options.data is not None
    arrays = shards.load_mapped(options.data, "train")
    about = shards.describe(options.data)
    if first and about.get("id_vector_model") != bundle.id_vector_model:
        raise InvalidInputError(
            f"the ID vectors of {options.data} are of {about.get('id_vector_model')!r}, the teacher takes "
            f"{bundle.id_vector_model!r}"
        )
    return make_batches(plain, arrays), about


def _distiller(
    config: DistillConfig,
    options: DistillOptions,
    bundle: Bundle,
    pairs: Pairs,
    teacher: Teacher,
    accelerator: Accelerator,
) -> Distiller:
    """The run, with the student as it starts."""
    identity = IdentityLoss(options.faces) if config.identity_loss else None
    if identity is not None and identity.id_vector_model != bundle.id_vector_model:
        raise InvalidInputError(
            f"the face models in {options.faces} are {identity.id_vector_model!r}, the teacher takes "
            f"{bundle.id_vector_model!r} vectors; or train with --identity-loss 0"
        )
    network = bundle.base if config.stage == "base" else bundle.sr
    weights = load_weights(options.teacher, config.stage)
    frozen = load_unet(network.at_size(config.train_size), weights)
    losses = StudentLosses(
        frozen,
        bundle.base_diffusion if config.stage == "base" else bundle.sr_diffusion,
        feature_loss=config.feature_loss,
        critic_share=config.critic,
        identity=identity,
        stage=None if identity is None else FaceStage.load(options.faces, threads=1),
        identity_weight=config.identity_loss,
        identity_centring=config.identity_centring,
        mean_vector=pairs.mean_vector,
    )
    unet = from_teacher(config, weights)
    started = None
    if options.start_from is not None:
        unet.load_state_dict(
            {name: torch.from_numpy(value) for name, value in load_weights(options.start_from, config.stage).items()}
        )
        started = weights_hash(options.start_from, config.stage)
    critic = None
    if config.critic:
        torch.manual_seed(config.seed)
        critic = Critic(feature_channels(frozen))
    about = {} if options.data is None else shards.describe(options.data)
    source = about.get("source", about.get("kind", "generated people"))
    facts = {"hardware": hardware(accelerator), "data": source, "start_from": started}
    distiller = Distiller(config, unet, pairs, teacher, losses, critic, options.out, facts, accelerator)
    if not options.resume and options.start_from is None and config.diffusion.prediction == "v":
        rows = np.arange(FITTED * FITTED_ROWS) % len(pairs)
        parts = [_at_steps(pairs.rows(part), config.steps) for part in np.split(rows, FITTED)]
        device = accelerator.device
        fit_last_layer(distiller.unet, distiller.steps, [part.share(0, 1, device) for part in parts])
        distiller.restart_average()
    return distiller


def _at_steps(batch: PairBatch, steps: int) -> PairBatch:
    """The rows of a batch at all steps in turn."""
    return dataclasses.replace(batch, places=torch.arange(len(batch.places)) % steps)


def feature_channels(teacher: UNet) -> list[int]:
    """Channels of the teacher's feature maps, finest first; see `UNet.features`."""
    config = teacher.config
    given = {name: torch.zeros(1, dim) for name, dim in _condition_dims(teacher).items()}
    if config.low_res_size is not None:
        given["low_res"] = torch.zeros(1, 3, config.low_res_size, config.low_res_size)
    with torch.no_grad():
        maps = teacher.features(torch.zeros(1, 3, config.image_size, config.image_size), torch.zeros(1), **given)
    return [one.shape[1] for one in maps]


def _condition_dims(teacher: UNet) -> dict[str, int]:
    dims = {"identity": teacher.config.identity_dim, "attributes": teacher.config.attribute_dim}
    return {name: dim for name, dim in dims.items() if dim is not None}


def _steps(distiller: Distiller, pairs: Pairs, options: DistillOptions, should_stop: Callable[[], bool]) -> None:
    recent: list[Losses] = []
    saved_at = time.monotonic()
    history = options.out / HISTORY_FILE
    main = distiller.is_main_process
    if main:
        cut_history(history, distiller.step)
    total = distiller.config.total_steps
    with tqdm(total=total, initial=distiller.step, unit="step", disable=not main, mininterval=1.0) as bar:
        for step, losses in distiller.run(should_stop):
            recent.append(losses)
            bar.set_postfix({name: f"{value:.4f}" for name, value in losses.items()}, refresh=False)
            bar.update()
            if step % options.log_every == 0:
                means = {name: float(np.mean([one[name] for one in recent])) for name in losses}
                recent.clear()
                if main:
                    line = {"step": step, "seconds": round(distiller.seconds, 1), **means}
                    with history.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(line) + "\n")
                if distiller.agree(time.monotonic() - saved_at > 60 * options.save_minutes):
                    distiller.save()
                    _pictures(distiller, pairs, options.out)
                    saved_at = time.monotonic()
    distiller.save()
    _pictures(distiller, pairs, options.out)


def _pictures(distiller: Distiller, pairs: Pairs, out: Path) -> None:
    """The first pairs: the teacher's images, and below them the student's after 1 .. K steps."""
    if not distiller.is_main_process:
        return
    config = distiller.config
    count = min(PREVIEW_FACES, len(pairs))
    batch = pairs.rows(np.arange(count)).share(0, 1, next(distiller.unet.parameters()).device)

    def conditions(rows: preview.Rows, conditional: Any) -> dict[str, torch.Tensor]:
        return {name: value[torch.from_numpy(rows).to(value.device)] for name, value in batch.conditions.items()}

    seeds = pairs.arrays["seeds"][:count].tolist()
    grid = [pairs.arrays["results"][:count]]
    with distiller.averaged() as unet:
        for steps in range(1, config.steps + 1):
            how = SamplingOptions(sampler="student", steps=steps, dynamic_threshold=0.0)
            grid.append(preview.generate(unet, config.diffusion, how, seeds, conditions))
    preview.save_picture(out / f"samples_{distiller.step:07d}.png", preview.tile(grid), scale=2)
