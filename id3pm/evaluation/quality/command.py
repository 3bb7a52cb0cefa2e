"""`id3pm evaluate quality`."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import get_args

import click

from id3pm.command_options import EXISTING_FILE, option, takes
from id3pm.evaluation.options import DataOptions, PairModelOptions, PresetOptions, guidance_scales, subject_of
from id3pm.evaluation.progress import progress_bar
from id3pm.evaluation.quality.diversity import landmark_look
from id3pm.evaluation.quality.efficientnet_lite import EfficientNetLite0
from id3pm.evaluation.quality.inception import Inception
from id3pm.evaluation.quality.judges import PairJudge
from id3pm.evaluation.quality.lpips import Lpips
from id3pm.evaluation.quality.report import QualityReport, write_quality_report
from id3pm.evaluation.quality.study import FeatureNetwork, QualityRow, QualityStudy, load_faces
from id3pm.formats.datasets import Split


@dataclasses.dataclass(frozen=True, kw_only=True)
class QualityOptions(DataOptions, PairModelOptions, PresetOptions):
    """The options of `id3pm evaluate quality`."""

    count: int = option(type=click.IntRange(10), default=200, help="Images; published tables have 10000 and more.")
    split: Split = option(
        type=click.Choice(get_args(Split)),
        default="test",
        help="Of the data set: the people held out from training, or the others, which Table 4 of the paper shows.",
    )
    guidance: tuple[float, ...] = option(
        callback=guidance_scales, default="1,1.5,2,2.5,3", help="Guidance scales; empty: real images alone."
    )
    people: int = option(type=click.IntRange(1), default=10, help="People of the diversity table.")
    seeds: int = option(type=click.IntRange(2), default=8, help="Images of each of them.")
    attributes: bool = option(
        is_flag=True,
        help="Each guidance scale once more, with attributes of other people; for bundles that take them and a data "
        "set that has them (id3pm measure-dataset).",
    )
    lpips_backbone: Path | None = option(
        type=EXISTING_FILE, help="alexnet-owt-7be5be79.pth, for LPIPS in the diversity table."
    )
    inception: Path | None = option(
        type=EXISTING_FILE,
        help="weights-inception-2015-12-05-6726825d.pth, for FID and KID; else features of EfficientNet-Lite0.",
    )


@click.command("quality")
@takes(QualityOptions)
def quality_command(options: QualityOptions) -> None:
    """How real and how diverse are generated faces?

    Frechet distance, kernel distance, precision and recall against real images, and diversity over seeds, by guidance
    scale: quality.json and quality.md in --out, written anew after each row. What has been generated is kept in --out
    and not made again.
    """
    network: FeatureNetwork = EfficientNetLite0() if options.inception is None else Inception(options.inception)
    lpips = None if options.lpips_backbone is None else Lpips(options.lpips_backbone)
    notes: list[str] = []
    people = min(options.people, options.count)
    with options.pipeline() as pipeline, progress_bar() as bar:
        for scale in options.guidance:
            pipeline.check(super_resolution=False, **{**options.sampling, "guidance_scale": scale})
        manifest = pipeline.base_manifest
        faces = load_faces(options.data, manifest.id_vector_model, options.count, options.split)
        more = options.models(manifest)[1][1:] if options.fr_models else ()
        study = QualityStudy(
            pipeline=pipeline,
            faces=faces,
            network=network,
            judges=[options.stage_judge(pipeline.face_stage), *(PairJudge(model, faces.others) for model in more)],
            look=landmark_look(pipeline.face_stage, options.threads, notes),
            cache=options.cache(),
            people=people,
            seeds=options.seeds,
            sampling=options.sampling,
            lpips=lpips,
        )
        kinds = (False, True) if options.attributes else (False,)
        wanted = [(scale, given) for scale in options.guidance for given in kinds]
        rows: list[QualityRow] = [study.real()]
        report = QualityReport(
            subject=subject_of(manifest, data=options.data.name, **options.sampling),
            network=network,
            people=people,
            seeds=options.seeds,
            rows=rows,
            asked=1 + len(wanted),
            notes=notes,
            split=options.split,
            references=study.references() if wanted else {},
        )
        write_quality_report(options.out, report)
        for scale, given in wanted:
            task = bar.add_task(f"guidance {scale:g}{', attributes' if given else ''}", total=study.images_per_row)
            rows.append(study.generated(scale, functools.partial(bar.advance, task), with_attributes=given))
            write_quality_report(options.out, report)
    click.echo((options.out / "quality.md").read_text(encoding="utf-8"))
