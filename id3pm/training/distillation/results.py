"""The teacher's results of a run: its engine, what it is asked for, and the files, which are made once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from accelerate import Accelerator
from tqdm import tqdm

from id3pm.attributes import FREE_SETS
from id3pm.config import SamplingOptions, to_json
from id3pm.engines.arrays import HOST
from id3pm.engines.base import Engine, load_engine
from id3pm.engines.manifest import MANIFEST_NAME, read_manifest
from id3pm.engines.torch_engine import TorchEngine
from id3pm.errors import InvalidInputError
from id3pm.formats import datasets as shards
from id3pm.formats.bundle import Bundle
from id3pm.training.batch import Batches
from id3pm.training.data import make_batches
from id3pm.training.distillation.config import DistillConfig
from id3pm.training.distillation.options import DistillOptions
from id3pm.training.distillation.pairs import SHARD, PairMaker, Pairs, files_of, pairs_file
from id3pm.training.distillation.teacher import Teacher
from id3pm.training.presets import TrainConfig
from id3pm.training.stream import stream_source

PAIRS_FOLDER = "pairs"
ENGINES = {"base": "denoiser_64", "sr": "super_resolution"}
TEACHER_BATCH = 16


def teachers_results(
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
        given = "neither is" if options.data is None else "both are"
        raise InvalidInputError(
            f"{given} given of --data and --stream: one of them says where the teacher's ID vectors come from"
        )
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
