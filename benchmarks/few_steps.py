"""Presets of a bundle and its students in one table, a picture of one person by steps, and the paper's networks.

    python benchmarks/few_steps.py measure --teacher REPOSITORY --student REPOSITORY --out out/few_steps
    python benchmarks/few_steps.py picture --teacher REPOSITORY --student REPOSITORY --out out/few_steps.png
    python benchmarks/few_steps.py arithmetic

`measure` keeps images and vectors in --out: interrupted, it goes on. Processor time does not depend on what else the
machine does. `arithmetic` measures nothing: operations of the paper's networks, and an H100 at a share of its rate.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

from dataset_sizing import GPUS
from id3pm.config import PAPER_BASE_64, PAPER_SR_256, SamplingOptions
from id3pm.diffusion.samplers import plan
from id3pm.evaluation.cache import Cache
from id3pm.evaluation.dlib_judge import DlibJudge
from id3pm.evaluation.figures.grid import Tile, grid
from id3pm.evaluation.files import save_sheet
from id3pm.evaluation.identity.study import IdentityStudy
from id3pm.evaluation.identity.targets import load_targets
from id3pm.evaluation.judges import StageJudge
from id3pm.evaluation.options import FACE_MODELS
from id3pm.evaluation.quality.efficientnet_lite import EfficientNetLite0
from id3pm.evaluation.quality.study import QualityStudy, load_faces
from id3pm.face.manifest import read_manifest
from id3pm.pipeline import Pipeline
from id3pm.sampling.presets import PRESETS
from networks import unet_flops
from report import table
from students import Way

Command = Callable[..., None]
H100 = "H100 SXM, H200"
HEADS = (
    "way",
    "evaluations",
    "GFLOP",
    "processor seconds",
    "SFace",
    "dlib",
    "no face",
    "Frechet distance",
    "diversity: features, ID, to the target",
)
REPOSITORY = click.Path(path_type=Path, file_okay=False, exists=True)


@dataclasses.dataclass(frozen=True)
class Costs:
    """Evaluations and operations of one image.

    Attributes:
        base: Evaluations of the base network.
        sr: The same of super-resolution.
        flops: Operations of both.
    """

    base: int
    sr: int
    flops: float

    def __str__(self) -> str:
        return f"{self.base} + {self.sr}"


def costs(pipeline: Pipeline, options: Mapping[str, Any]) -> Costs:
    """Of one image with these options: a preset, steps, or nothing for the bundle's own."""
    first, second = pipeline.base_manifest, pipeline.sr_manifest
    base, sr = first.sampling, second.sampling
    if "preset" in options:
        base, sr = PRESETS[options["preset"]].base, PRESETS[options["preset"]].sr
    base = dataclasses.replace(base, steps=options.get("steps", base.steps))
    rows = [
        plan(manifest.diffusion, how, manifest.unet.learn_sigma).evaluations
        for manifest, how in ((first, base), (second, sr))
    ]
    return Costs(*rows, rows[0] * unet_flops(first.unet) + rows[1] * unet_flops(second.unet))


def ways_of(teacher: Pipeline, students: tuple[Pipeline, ...]) -> Iterator[Way]:
    """The teacher's presets and its defaults; each student with all its steps, and the one of the fewest with one."""
    for name in PRESETS:
        yield Way(f"`{name}`", teacher, {"preset": name})
    yield Way("default", teacher, {})
    for student in sorted(students, key=_steps, reverse=True):
        yield Way(f"student of {_steps(student)}", student, {})
    if students and _steps(fewest := min(students, key=_steps)) > 1:
        yield Way(f"student of {_steps(fewest)}, 1 step", fewest, {"steps": 1})


def _steps(student: Pipeline) -> int:
    """What it was taught."""
    return student.base_manifest.sampling.steps


@contextlib.contextmanager
def loaded(teacher: Path, students: tuple[Path, ...], threads: int) -> Iterator[list[Way]]:
    """All ways, ready."""
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(Pipeline.load(folder, threads=threads)) for folder in (teacher, *students)]
        yield list(ways_of(opened[0], tuple(opened[1:])))


def measured(way: Way, data: Path, repository: Path, out: Path, people: int, count: int) -> dict[str, Any]:
    """Identity by two judges, quality and diversity of one way."""
    pipeline, cache = way.pipeline, Cache(out / "cache")
    key = read_manifest(repository / FACE_MODELS).models_key
    judges = [StageJudge(pipeline.face_stage, key), DlibJudge(pipeline.face_stage, key)]
    model = pipeline.base_manifest.id_vector_model
    targets = load_targets(data, model, people, 1)
    found = IdentityStudy(pipeline, targets, judges, cache).judge(way.options)
    study = QualityStudy(
        pipeline=pipeline,
        faces=load_faces(data, model, count),
        network=EfficientNetLite0(),
        judges=judges[:1],
        look=None,
        cache=cache,
        people=8,
        seeds=6,
        sampling=way.options,
    )
    row = study.generated(2.0)
    return {
        "identity": {one.judge: one.similarity.mean for one in found},
        "no_face": found[0].no_face,
        "frechet": row.quality.frechet,
        "recall": row.quality.recall,
        "diversity": {name: values[0] for name, values in row.diversity.items()},
    }


def line(result: Mapping[str, Any]) -> list[str]:
    """A row of the table."""
    return [
        result["name"],
        result["evaluations"],
        f"{result['gflop']:.1f}",
        f"{result['processor_s']:.2f}",
        *(f"{value:.3f}" for value in result["identity"].values()),
        f"{result['no_face']:.1%}",
        f"{result['frechet']:.1f}",
        ", ".join(f"{value:.3f}" for value in result["diversity"].values()),
    ]


def compared(command: Command) -> Command:
    """The options of what is compared."""
    for option in (
        click.option("--without", multiple=True, type=click.Choice(list(PRESETS)), help="A preset that is left out."),
        click.option("--threads", type=click.IntRange(1), default=2, help="Of each engine."),
        click.option("--data", type=REPOSITORY, default=Path("data/demo"), help="From id3pm demo-dataset or similar."),
        click.option("--student", "students", type=REPOSITORY, multiple=True, required=True, help="May be repeated."),
        click.option("--teacher", type=REPOSITORY, required=True, help="Model repository (id3pm build)."),
    ):
        command = option(command)
    return command


@click.group(help=(__doc__ or "").split("\n\n")[0])
def main() -> None:
    """Command line; see the module's text."""


@main.command("measure")
@compared
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("out/few_steps"))
@click.option("--people", type=click.IntRange(20), default=60, help="Held-out people, for identity.")
@click.option("--count", type=click.IntRange(10), default=150, help="Images, for quality.")
def measure_command(
    teacher: Path,
    students: tuple[Path, ...],
    data: Path,
    out: Path,
    people: int,
    count: int,
    threads: int,
    without: tuple[str, ...],
) -> None:
    """Evaluations, operations, time, identity, quality and diversity: few_steps.json and few_steps.md in --out."""
    out.mkdir(parents=True, exist_ok=True)
    results = []
    with loaded(teacher, students, threads) as ways:
        for way in [one for one in ways if one.options.get("preset") not in without]:
            spent = costs(way.pipeline, way.options)
            vectors = load_targets(data, way.pipeline.base_manifest.id_vector_model, people, 1).vectors[:4]
            for _ in range(2):
                way.round(vectors)
            results.append(
                {
                    "name": way.name,
                    "evaluations": str(spent),
                    "gflop": spent.flops / 1e9,
                    "processor_s": min(way.processor) / len(vectors),
                    **measured(way, data, teacher, out, people, count),
                }
            )
            click.echo(" | ".join(line(results[-1])))
    (out / "few_steps.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (out / "few_steps.md").write_text("\n".join(table(HEADS, [line(one) for one in results])) + "\n", encoding="utf-8")


@main.command("picture")
@compared
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=Path("out/few_steps.png"))
@click.option("--person", type=click.IntRange(0), default=0, help="Which of the held-out people.")
@click.option("--seeds", type=click.IntRange(1), default=3, help="Rows of the picture.")
def picture_command(
    teacher: Path,
    students: tuple[Path, ...],
    data: Path,
    out: Path,
    person: int,
    seeds: int,
    threads: int,
    without: tuple[str, ...],
) -> None:
    """One person by steps, a row for each seed: counterpart of Fig. 1 of the paper's supplement."""
    with loaded(teacher, students, threads) as ways:
        shown = [way for way in ways if way.options.get("preset") not in without]
        vector = load_targets(data, shown[0].pipeline.base_manifest.id_vector_model, 20, 1).vectors[person]
        vectors = np.repeat(vector[None], seeds, axis=0)
        made = [way.pipeline.generate(vectors, range(seeds), **way.options).images for way in shown]
        heads = [f"{way.name.split(',')[0].strip('`')}: {costs(way.pipeline, way.options)}" for way in shown]
    rows = [[Tile(images[seed]) for images in made] for seed in range(seeds)]
    out.parent.mkdir(parents=True, exist_ok=True)
    save_sheet(out, grid(rows, columns=heads, size=160))


@main.command("arithmetic")
@click.option(
    "--utilisation", type=click.FloatRange(0, 1, min_open=True), default=0.3, help="Share of the published rate."
)
def arithmetic_command(utilisation: float) -> None:
    """The paper's networks on an H100, as a Markdown table: counted and divided, not measured."""
    base, sr = unet_flops(PAPER_BASE_64), unet_flops(PAPER_SR_256)
    ways = {f"`{name}`": (_rows(preset.base), preset.sr.steps) for name, preset in PRESETS.items()}
    ways |= {f"student of {first} + {second}": (first, second) for first, second in ((4, 4), (2, 2), (2, 1), (1, 1))}
    rows = []
    for name, (first, second) in ways.items():
        needed = first * base + second * sr
        rate = GPUS[H100] * 1e12 * utilisation / needed
        rows.append([name, f"{first} + {second}", f"{needed / 1e12:.3g}", f"{1e3 / rate:.3g}", f"{rate:.3g}"])
    click.echo("\n".join(table(["way", "evaluations", "TFLOP an image", "ms an image", "images/s"], rows)))


def _rows(how: SamplingOptions) -> int:
    """Evaluations of a guided loop at every step."""
    return 2 * how.steps


if __name__ == "__main__":
    main()
