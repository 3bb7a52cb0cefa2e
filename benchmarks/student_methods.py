"""Ways to train a student, each from the teacher's weights, on the same pairs and for the same processor time.

    python benchmarks/student_methods.py --teacher bundles/demo --repository REPOSITORY --pairs RUN/pairs \
        --data data/held_out

Guidance distillation (Meng et al. 2023), the recipe of `id3pm distill`, progressive targets (Salimans and Ho 2022),
consistency distillation (Song et al. 2023) and distribution matching (DMD2, Yin et al. 2024). REPOSITORY has the
teacher's engine, RUN is a run of `id3pm distill` of this teacher. What is done is kept in --out: an interrupted
comparison goes on where it was, and one of fewer --minutes is trained further.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import torch

from id3pm.engines.base import load_engine
from id3pm.evaluation.options import FACE_MODELS
from id3pm.formats.bundle import read_bundle
from id3pm.training.distillation.teacher import Teacher
from report import table
from student_parts.judging import Judges, Maker, by_student, by_teacher
from student_parts.methods import METHODS, Setting, common_config, trained, untrained

HEADS = (
    "method",
    "optimiser steps",
    "SFace",
    "dlib",
    "no face found",
    "Frechet distance",
    "recall",
    "diversity: features",
    "ID distance",
)
TEACHER, START = "the teacher's own sampling", "the start: the teacher's weights, no training"
FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)


@click.command(help=__doc__.split("\n", 1)[0])
@click.option("--teacher", type=FOLDER, required=True, help="A bundle.")
@click.option("--repository", type=FOLDER, required=True, help="Its engines.")
@click.option("--pairs", type=FOLDER, required=True, help="Folder `pairs` of a distillation run of this teacher.")
@click.option("--data", type=FOLDER, required=True, help="A data set with held-out people.")
@click.option("--method", "names", type=click.Choice(list(METHODS)), multiple=True, default=tuple(METHODS))
@click.option("--minutes", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True, help="Each.")
@click.option("--precision", type=click.Choice(["no", "bf16"]), default="no", show_default=True)
@click.option("--people", type=click.IntRange(20), default=200, show_default=True)
@click.option("--shown", type=click.IntRange(1), default=12, show_default=True, help="People for the diversity.")
@click.option("--seeds", type=click.IntRange(2), default=4, show_default=True, help="Images of each of them.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("out/student_methods"))
def main(
    teacher: Path,
    repository: Path,
    pairs: Path,
    data: Path,
    names: tuple[str, ...],
    minutes: float,
    precision: str,
    people: int,
    shown: int,
    seeds: int,
    threads: int,
    out: Path,
) -> None:
    """Trains, judges, prints the table, and writes it into --out."""
    torch.set_num_threads(threads)
    bundle, faces = read_bundle(teacher), repository / FACE_MODELS
    judges = Judges.load(data, faces, bundle.id_vector_model, out / "cache", people, shown, seeds)
    results = []
    with contextlib.closing(load_engine(repository / "denoiser_64/1/engine", threads=threads)) as engine:
        by_engine = Teacher(engine, bundle.base_diffusion, bundle.sampling)
        config = common_config(teacher, pairs, precision=precision)
        setting = Setting(teacher, by_engine, pairs, faces, config, minutes)

        def maker(unet: Any) -> Maker:
            return by_student(unet, config.diffusion, bundle.sampling.dynamic_threshold)

        def kept(folder: str, said: Mapping[str, Any], make: Callable[[], Maker]) -> None:
            """Judges once; the figures of another comparison are not taken."""
            described = {**said, "people": people, "shown": shown, "seeds": seeds}
            file = out / folder / f"result_{said.get('minutes', 0):g}.json"
            found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
            if found.get("of") != json.loads(json.dumps(described)):
                found = {"of": described, **judges.judge(make())}
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            results.append(found)
            click.echo(" | ".join(line(found)))

        weights = config.teacher_weights_sha256
        kept("teacher", {"name": TEACHER, "weights": weights}, lambda: by_teacher(by_engine))
        kept("start", {"name": START, "weights": weights, "steps": 0}, lambda: maker(untrained(setting)))
        for name in names:
            unet, reached = trained(name, setting, out)
            said = {"name": METHODS[name].about, **reached}
            kept(name, said, lambda unet=unet: maker(unet))  # type: ignore[misc]
    (out / f"student_methods_{minutes:g}.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    lines = table(HEADS, [line(one) for one in results])
    (out / f"student_methods_{minutes:g}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def line(result: Mapping[str, Any]) -> list[str]:
    """A row of the table."""
    of, spread = result["of"], result["diversity"]
    identity = next(value for name, value in spread.items() if name.startswith("ID distance"))
    return [
        of["name"],
        str(of.get("steps", "")),
        f"{result['sface']:.3f}",
        f"{result['dlib']:.3f}",
        f"{100 * result['no_face_sface']:.1f} %",
        f"{result['frechet']:.1f}",
        f"{result['recall']:.2f}",
        f"{spread['feature distance']:.3f}",
        f"{identity:.3f}",
    ]


if __name__ == "__main__":
    main()
