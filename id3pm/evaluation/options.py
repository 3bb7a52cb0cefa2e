"""Options and subjects that the commands of `id3pm evaluate` have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from id3pm.command_options import FOLDER, REPOSITORY, given, numbers, option
from id3pm.config import SamplingOptions
from id3pm.engines.manifest import Manifest
from id3pm.errors import InvalidInputError
from id3pm.evaluation.cache import Cache
from id3pm.evaluation.dlib_judge import DlibJudge
from id3pm.evaluation.files import SHORT
from id3pm.evaluation.judges import Judge, StageJudge
from id3pm.evaluation.verification.fr_models import FaceEngineModel, PairModel, open_models
from id3pm.face.manifest import read_manifest
from id3pm.face.stage import FaceStage
from id3pm.pipeline import Pipeline
from id3pm.sampling.presets import PRESETS

FACE_MODELS = Path("face_embedding/1/engine")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """The options of every evaluation of built engines."""

    repository: Path = option(type=REPOSITORY, default=Path("triton_repo"), help="Built engines.")
    out: Path = option(type=FOLDER, default=Path("out/evaluation"), help="Folder of the report.")
    threads: int | None = option(type=click.IntRange(1), help="CPU threads; all cores if not given.")

    def pipeline(self) -> Pipeline:
        """Loads the engines."""
        return Pipeline.load(self.repository, threads=self.threads)

    def cache(self) -> Cache:
        """Keeps generated images and vectors beside the report."""
        return Cache(self.out / "cache")

    def models_key(self) -> str:
        """See `FaceManifest.models_key`."""
        return read_manifest(self.repository / FACE_MODELS).models_key

    def stage_judge(self, stage: FaceStage) -> Judge:
        """The FR model that gave the ID vectors, as a judge."""
        return StageJudge(stage, self.models_key())


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataOptions(EngineOptions):
    """The options of an evaluation on people held out from training."""

    data: Path = option(type=FOLDER, default=Path("data/demo"), help="From id3pm demo-dataset or similar.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgeOptions(EngineOptions):
    """The options of an evaluation in which FR models judge generated faces."""

    independent: bool = option(
        "--independent/--no-independent", default=True, help="Also judge with dlib's network (extra evaluate)."
    )

    def judges(self, stage: FaceStage) -> list[Judge]:
        """The FR model that gave the ID vectors, and the independent one where it is wanted."""
        judges = [self.stage_judge(stage)]
        return [*judges, DlibJudge(stage, self.models_key())] if self.independent else judges


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairModelOptions(EngineOptions):
    """The options of an evaluation in which several FR models compare pictures."""

    fr_models: tuple[str, ...] = option(
        "--fr-model",
        multiple=True,
        metavar="dlib|FOLDER",
        help="An FR model beside the training one: dlib, or a folder of id3pm build-faces; repeatable.",
    )

    def models(self, manifest: Manifest) -> tuple[FaceEngineModel, Sequence[PairModel]]:
        """The FR model of the repository; and all FR models that compare, this one first.

        Args:
            manifest: Of the 64 px engine.

        Raises:
            InvalidInputError: The U-Net takes ID vectors of another FR model, or a model is named twice.
            EngineError: A folder has no usable face models.
        """
        training = FaceEngineModel(self.repository, self.threads)
        if training.name != manifest.id_vector_model:
            raise InvalidInputError(
                f"the face stage gives {training.name} ID vectors, the U-Net takes "
                f"{manifest.id_vector_model}: build it with id3pm build-faces"
            )
        return training, open_models(self.fr_models, training, self.threads)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PresetOptions(EngineOptions):
    """The options of an evaluation that may sample otherwise than the bundle does."""

    preset: str | None = option(
        type=click.Choice(list(PRESETS)), help="How images are sampled; else the bundle's default."
    )
    steps: int | None = option(type=click.IntRange(1), help="Of the 64 px loop; else the preset's.")

    @property
    def sampling(self) -> dict[str, Any]:
        """The sampling options that were given."""
        return given(self, "preset", "steps")


def guidance_scales(context: click.Context, parameter: click.Parameter, text: str) -> tuple[float, ...]:
    """Reads guidance scales separated by commas.

    Raises:
        InvalidOptionError: One is out of range.
    """
    scales = (numbers(float, "1,2")(context, parameter, text) or ()) if text else ()
    for scale in scales:  # a bad value is noticed before anything is read
        SamplingOptions(guidance_scale=scale)
    return tuple(scales)


def subject_of(manifest: Manifest, **more: object) -> dict[str, Any]:
    """What is evaluated, for the head of a report: bundle, engine, and more."""
    return {
        "bundle": manifest.bundle.name,
        "weights": manifest.bundle.weights_sha256[:SHORT],
        "target": manifest.target,
        "precision": manifest.precision,
        **more,
    }
