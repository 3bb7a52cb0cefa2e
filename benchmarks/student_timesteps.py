"""At which two timesteps a student should work: the teacher itself, guidance included, in a student's two steps.

    python benchmarks/student_timesteps.py --teacher bundles/demo --repository REPOSITORY --data data/held_out

The first step is one evaluation of pure noise (two with guidance). Its image gets noise of a second log SNR, and the
teacher finishes it in 1, 2 or more steps of its ODE: what the student's last step can be regressed to. No network is
trained, so a row is what regression alone would reach at best, and the first row is the teacher's own sampling.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray

from id3pm.config import DiffusionConfig
from id3pm.diffusion.noise import STAGE_BASE, noise
from id3pm.diffusion.schedule import nearest_timestep
from id3pm.engines.base import load_engine
from id3pm.evaluation.cache import Cache
from id3pm.evaluation.dlib_judge import DlibJudge
from id3pm.evaluation.identity.targets import View, load_targets
from id3pm.evaluation.judges import StageJudge
from id3pm.evaluation.options import FACE_MODELS
from id3pm.evaluation.quality.distances import quality
from id3pm.evaluation.quality.efficientnet_lite import EfficientNetLite0
from id3pm.evaluation.quality.study import load_faces
from id3pm.face.manifest import read_manifest
from id3pm.face.stage import FaceStage
from id3pm.formats.bundle import Bundle, read_bundle
from id3pm.formats.images import to_uint8
from id3pm.training.distillation.config import LOG_SNR
from id3pm.training.distillation.student import StudentSteps
from id3pm.training.distillation.teacher import Teacher
from report import table

Images = NDArray[np.uint8]
HEADS = ("log SNR of the second step", "steps from there", "SFace", "dlib", "Frechet distance", "recall")
FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)
GUIDANCE = 2.0


@dataclasses.dataclass(frozen=True)
class People:
    """Whose images are made, each with one seed."""

    bundle: Bundle
    teacher: Teacher
    vectors: NDArray[np.float32]

    @property
    def scales(self) -> NDArray[np.float32]:
        """The guidance scale of each, [N]."""
        return np.full(len(self.vectors), GUIDANCE, np.float32)

    def sampled(self) -> Images:
        """By the teacher's own sampling, uint8 [N, S, S, 3]."""
        return self.teacher.results(range(len(self.vectors)), self.scales, {"identity": self.vectors})

    def noised(self, process: DiffusionConfig) -> NDArray[np.float32]:
        """What the last of two steps is given after the teacher's first, float32 [N, 3, S, S]."""
        size, seeds = self.bundle.base.image_size, range(len(self.vectors))
        first, second = (
            torch.from_numpy(np.stack([noise(seed, STAGE_BASE, draw, (3, size, size)) for seed in seeds]))
            for draw in (0, 1)
        )
        steps, places = StudentSteps(process, torch.device("cpu")), np.zeros(len(seeds), np.int64)
        timesteps = process.student_timesteps or ()
        images = self.teacher.guided(
            steps.start(first).numpy(), timesteps, places, self.scales, {"identity": self.vectors}
        )
        return steps.renoised(torch.from_numpy(images), second, torch.from_numpy(places)).numpy()

    def in_two_steps(self, log_snr: float, finishing: Sequence[int]) -> list[Images]:
        """The teacher's images after one step and so many further ones from a log SNR."""
        diffusion = self.bundle.base_diffusion
        timesteps = tuple(sorted(nearest_timestep(diffusion, value) for value in (log_snr, LOG_SNR[2][-1])))
        process = dataclasses.replace(diffusion, student_timesteps=timesteps)
        x, given = self.noised(process), {"identity": self.vectors}
        return [to_uint8(self.teacher.finished(x, timesteps[0], steps, self.scales, given)) for steps in finishing]


@click.command(help=__doc__.split("\n", 1)[0])
@click.option("--teacher", type=FOLDER, required=True, help="A bundle.")
@click.option("--repository", type=FOLDER, required=True, help="Its engines.")
@click.option("--data", type=FOLDER, required=True, help="A data set with held-out people.")
@click.option("--log-snr", type=float, multiple=True, default=(-0.85, 0.4, 0.7, 1.0), show_default=True)
@click.option("--finishing", type=click.IntRange(1), multiple=True, default=(1, 3), show_default=True)
@click.option("--people", type=click.IntRange(10), default=200, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("out/student_timesteps"))
def main(
    teacher: Path,
    repository: Path,
    data: Path,
    log_snr: tuple[float, ...],
    finishing: tuple[int, ...],
    people: int,
    threads: int,
    out: Path,
) -> None:
    """Measures, prints the table, and writes it into --out."""
    torch.set_num_threads(threads)
    out.mkdir(parents=True, exist_ok=True)
    bundle = read_bundle(teacher)
    model = bundle.id_vector_model
    targets, faces = load_targets(data, model, people, 1), load_faces(data, model, people)
    stage, key = FaceStage.load(repository / FACE_MODELS, threads), read_manifest(repository / FACE_MODELS).models_key
    views = [View(judge, targets, Cache(out / "cache")) for judge in (StageJudge(stage, key), DlibJudge(stage, key))]
    network = EfficientNetLite0()
    reference = network.features(faces.reference)
    results: list[dict[str, object]] = []

    def judge(name: str, steps: str, images: Images) -> None:
        rows = np.arange(len(images))
        found = [
            np.nanmean(view.similarities(view.embed(images, hashlib.sha256(images.tobytes()).hexdigest()), rows))
            for view in views
        ]
        how = quality(network.features(images), reference)
        results.append(dict(zip(HEADS, (name, steps, *map(float, found), how.frechet, how.recall), strict=True)))
        click.echo(" | ".join(_line(results[-1])))

    with contextlib.closing(load_engine(repository / "denoiser_64/1/engine", threads=threads)) as engine:
        those = People(bundle, Teacher(engine, bundle.base_diffusion, bundle.sampling), targets.vectors)
        judge("the teacher's own sampling", str(bundle.sampling.steps), those.sampled())
        for value in log_snr:
            for steps, images in zip(finishing, those.in_two_steps(value, finishing), strict=True):
                judge(f"{value:g}", str(steps), images)
    (out / "student_timesteps.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    lines = table(HEADS, [_line(one) for one in results])
    (out / "student_timesteps.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _line(result: dict[str, object]) -> list[str]:
    formats = ("{}", "{}", "{:.3f}", "{:.3f}", "{:.1f}", "{:.2f}")
    return [how.format(value) for how, value in zip(formats, result.values(), strict=True)]


if __name__ == "__main__":
    main()
