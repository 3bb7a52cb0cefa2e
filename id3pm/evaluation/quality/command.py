"""`id3pm evaluate quality`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from id3pm.config import SamplingOptions
from id3pm.evaluation.cache import Cache
from id3pm.evaluation.judges import StageJudge
from id3pm.evaluation.quality.diversity import landmark_look
from id3pm.evaluation.quality.efficientnet_lite import EfficientNetLite0
from id3pm.evaluation.quality.inception import Inception
from id3pm.evaluation.quality.report import QualityReport, write_quality_report
from id3pm.evaluation.quality.study import FeatureNetwork, QualityRow, QualityStudy, load_faces
from id3pm.face.manifest import read_manifest
from id3pm.pipeline import Pipeline
from id3pm.sampling.presets import PRESETS

FOLDER = click.Path(path_type=Path, file_okay=False)
FACE_MODELS = Path("face_embedding/1/engine")
SHORT = 12  # hexadecimal digits of a hash in the report


@click.command("quality")
@click.option("--data", type=FOLDER, default=Path("data/demo"), help="From id3pm demo-dataset or similar.")
@click.option("--repository", type=FOLDER, default=Path("triton_repo"), help="Built engines.")
@click.option("--count", type=click.IntRange(10), default=200, help="Images; published tables have 10000 and more.")
@click.option("--guidance", "guidance_text", default="1,1.5,2,2.5,3", help="Guidance scales.")
@click.option("--people", type=click.IntRange(1), default=10, help="People of the diversity table.")
@click.option("--seeds", type=click.IntRange(2), default=8, help="Images of each of them.")
@click.option("--preset", type=click.Choice(list(PRESETS)), help="How images are sampled; else the bundle's default.")
@click.option("--steps", type=click.IntRange(1), help="Of the 64 px loop; else the preset's.")
@click.option(
    "--inception",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="weights-inception-2015-12-05-6726825d.pth, for FID and KID; else features of EfficientNet-Lite0.",
)
@click.option("--out", type=FOLDER, default=Path("out/evaluation"), help="Folder of the report.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads; all cores if not given.")
def quality_command(
    data: Path,
    repository: Path,
    count: int,
    guidance_text: str,
    people: int,
    seeds: int,
    preset: str | None,
    steps: int | None,
    inception: Path | None,
    out: Path,
    threads: int | None,
) -> None:
    """How real and how diverse are generated faces?

    Frechet distance, kernel distance, precision and recall against real images, and diversity over seeds, by guidance
    scale: quality.json and quality.md in --out, written anew after each row. What has been generated is kept in --out
    and not made again.
    """
    guidance = _scales(guidance_text)
    network: FeatureNetwork = EfficientNetLite0() if inception is None else Inception(inception)
    given = {"preset": preset, "steps": steps}
    sampling: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    notes: list[str] = []
    with Pipeline.load(repository, threads=threads) as pipeline, _progress() as bar:
        manifest = pipeline.base_manifest
        faces = load_faces(data, manifest.id_vector_model, count)
        judge = StageJudge(pipeline.face_stage, _models_key(repository))
        look = landmark_look(pipeline.face_stage, threads, notes)
        people = min(people, count)
        study = QualityStudy(pipeline, faces, network, [judge], look, Cache(out / "cache"), people, seeds, sampling)
        rows: list[QualityRow] = [study.real()]
        for scale in guidance:
            task = bar.add_task(f"guidance {scale:g}", total=study.images_per_row)
            rows.append(study.generated(scale, functools.partial(bar.advance, task)))
            subject = {
                "bundle": manifest.bundle.name,
                "weights": manifest.bundle.weights_sha256[:SHORT],
                "target": manifest.target,
                "precision": manifest.precision,
                "data": data.name,
                **sampling,
            }
            report = QualityReport(
                subject=subject,
                network=network,
                people=people,
                seeds=seeds,
                rows=rows,
                asked=1 + len(guidance),
                notes=notes,
            )
            write_quality_report(out, report)
    click.echo((out / "quality.md").read_text(encoding="utf-8"))


def _scales(text: str) -> tuple[float, ...]:
    try:
        scales = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"--guidance {text}: give numbers separated by commas, such as 1,2") from None
    for scale in scales:  # a bad value is noticed before anything is read
        SamplingOptions(guidance_scale=scale)
    return scales


def _models_key(repository: Path) -> str:
    manifest = read_manifest(repository / FACE_MODELS)
    return f"{' '.join(manifest.detector_files.values())} {manifest.encoder_sha256}"


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True, highlight=False))
