"""The HTML report as one file, and the same numbers as JSON."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from id3pm import __version__
from id3pm.errors import MissingExtraError
from id3pm.evaluation.files import write_json, write_text
from id3pm.evaluation.robustness.contact_sheet import angle, shown, verdict
from id3pm.evaluation.robustness.study import Block, Opinion, Subject
from id3pm.evaluation.robustness.summary import ORDER, Line, bands, named, readings, summarise, traces
from id3pm.evaluation.robustness.thresholds import degrees
from id3pm.evaluation.robustness.variants import MEAN, ORIGINAL
from id3pm.formats.images import encode_png
from id3pm.installation import how_to_install

if TYPE_CHECKING:
    import jinja2

SCHEMA = 2
TEMPLATE = "report.html.j2"
THUMBNAIL = 128  # pixels of a picture that was shown; generated ones are embedded as they are
WIDEST = 120.0  # degrees at the right end of the chart; what lies beyond is drawn there


@dataclasses.dataclass(frozen=True)
class About:
    """What is needed to repeat the analysis.

    Attributes:
        models: For each model its `name`, `bundle`, `weights`, `engine` and `id_vector_model`.
        seed: Of every image.
        options: Of sampling, as they were given.
        notes: Notes on parts that could not be done.
    """

    models: list[dict[str, str]]
    seed: int
    options: dict[str, object]
    notes: list[str]


def write_report(folder: Path, blocks: Sequence[Block], about: About) -> Path:
    """Writes report.html and analysis.json.

    Args:
        folder: Where to; it exists.
        blocks: Every subject under every model.
        about: Models, seed and options.

    Returns:
        report.html.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    lines = summarise(blocks)
    write_json(folder / "analysis.json", _numbers(blocks, lines, about))
    file = folder / "report.html"
    text = load_template().render(
        version=__version__,
        about=about,
        readings=readings(lines),
        tables=_tables(lines),
        traces=traces(blocks),
        named=named,
        thresholds=[
            {
                "threshold": opinion.threshold,
                "strict": degrees(opinion.threshold.false_match_1_in_1000),
                "published": opinion.published,
                "published_degrees": None if opinion.published is None else degrees(opinion.published.cosine),
            }
            for opinion in _judged(blocks)
            if opinion.threshold
        ],
        charts=[_chart(name, [block for block in blocks if block.model == name]) for name in _models(blocks)],
        subjects=[_subject([block for block in blocks if block.subject is subject]) for subject in _subjects(blocks)],
    )
    write_text(file, text)
    return file


def load_template() -> jinja2.Template:
    """The report's template.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtraError(f"the report needs jinja2: {how_to_install('evaluate')}") from error
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(angle=_shown_angle, percent=_percent, share=_share)
    source = resources.files("id3pm.evaluation.robustness").joinpath(TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(source)


def _models(blocks: Sequence[Block]) -> list[str]:
    return list(dict.fromkeys(block.model for block in blocks))


def _subjects(blocks: Sequence[Block]) -> list[Subject]:
    return list({id(block.subject): block.subject for block in blocks}.values())


def _judged(blocks: Sequence[Block]) -> list[Opinion]:
    """An opinion for each measured threshold."""
    found = {opinion.threshold.key: opinion for block in blocks for opinion in block.opinions if opinion.threshold}
    return list(found.values())


def _tables(lines: Sequence[Line]) -> list[dict[str, object]]:
    """For each model its judges and, for each family, a line per judge."""
    tables = []
    for model in dict.fromkeys(line.model for line in lines):
        mine = [line for line in lines if line.model == model]
        families = dict.fromkeys(line.family for line in mine)
        judges = list(dict.fromkeys(line.judge for line in mine))
        rows = [[line for line in mine if line.family == family] for family in families]
        published = any(line.recognised_published is not None for line in mine)
        tables.append({"model": model, "judges": judges, "rows": rows, "published": published})
    return tables


def _chart(model: str, blocks: Sequence[Block]) -> dict[str, object]:
    """Every angle of a model's own opinion as a dot: families from top to bottom, 0 .. WIDEST from left to right."""
    people = [block for block in blocks if block.subject.person]
    rows = []
    for family in (family for family in ORDER if family not in (ORIGINAL, MEAN)):
        dots = [
            {
                "title": f"{block.subject.name}, {picture.label}",
                "drift": min(float(block.opinions[0].drift[row]), WIDEST),
                "kept": None if np.isnan(block.opinions[0].kept[row]) else min(block.opinions[0].kept[row], WIDEST),
            }
            for block in people
            for row, picture in enumerate(block.subject.pictures)
            if picture.family == family and not np.isnan(block.opinions[0].drift[row])
        ]
        if dots:
            rows.append({"name": named(family), "dots": dots})
    threshold = people[0].opinions[0].threshold if people else None
    return {"model": model, "bands": rows, "limit": None if threshold is None else threshold.degrees}


def _subject(blocks: Sequence[Block]) -> dict[str, object]:
    """Everything the template shows of one subject: a band of pictures per family, and all its numbers."""
    subject = blocks[0].subject
    families = []
    for family, columns in bands(subject.pictures).items():
        families.append(
            {
                "name": "" if family == ORIGINAL else named(family),
                "columns": [
                    {"label": subject.pictures[row].label, "source": _thumbnail(shown(subject.pictures, row))}
                    for row in columns
                ],
                "rows": [
                    {
                        "model": block.model,
                        "judges": [
                            {"name": opinion.judge, "limit": opinion.threshold and opinion.threshold.degrees}
                            for opinion in block.opinions
                        ],
                        "cells": [_cell(block, row) for row in columns],
                    }
                    for block in blocks
                ],
            }
        )
    return {"name": subject.name, "person": subject.person, "bands": families, "details": _details(blocks)}


def _cell(block: Block, row: int) -> dict[str, object]:
    image, person = block.images[row], block.subject.person
    original = block.subject.pictures[row].family == ORIGINAL
    return {
        "source": None if image is None else _data_uri("png", encode_png(image, generated=True)),
        "opinions": [
            {
                "judge": opinion.judge,
                "drift": None if original or not person else _badge(opinion, opinion.drift[row]),
                "kept": _badge(opinion, opinion.kept[row] if person else opinion.own[row]),
            }
            for opinion in block.opinions
        ],
    }


def _badge(opinion: Opinion, value: float) -> dict[str, str]:
    """An angle with the class that colours it."""
    return {"text": angle(value), "verdict": verdict(opinion, value)}


def _details(blocks: Sequence[Block]) -> list[dict[str, object]]:
    return [
        {
            "model": block.model,
            "judges": [opinion.judge for opinion in block.opinions],
            "rows": [
                {
                    "family": named(picture.family),
                    "label": picture.label,
                    "angles": [
                        _badge(opinion, float(getattr(opinion, name)[row]))
                        for opinion in block.opinions
                        for name in (("drift", "kept", "own") if block.subject.person else ("own",))
                    ],
                }
                for row, picture in enumerate(block.subject.pictures)
            ],
        }
        for block in blocks
    ]


def _numbers(blocks: Sequence[Block], lines: Sequence[Line], about: About) -> dict[str, object]:
    """analysis.json: everything but the pictures; angles in degrees, null where no face was found."""
    return {
        "schema": SCHEMA,
        **dataclasses.asdict(about),
        "thresholds": [
            {
                **dataclasses.asdict(opinion.threshold),
                "degrees": opinion.threshold.degrees,
                "published": None if opinion.published is None else dataclasses.asdict(opinion.published),
            }
            for opinion in _judged(blocks)
            if opinion.threshold
        ],
        "summary": [dataclasses.asdict(line) for line in lines],
        "readings": readings(lines),
        "traces": [dataclasses.asdict(found) for found in traces(blocks)],
        "subjects": [
            {
                "name": block.subject.name,
                "model": block.model,
                "person": block.subject.person,
                "pictures": [
                    {
                        "family": picture.family,
                        "label": picture.label,
                        **{
                            opinion.judge: {
                                name: round(float(getattr(opinion, name)[row]), 2) for name in ("drift", "kept", "own")
                            }
                            for opinion in block.opinions
                        },
                    }
                    for row, picture in enumerate(block.subject.pictures)
                ],
            }
            for block in blocks
        ],
    }


def _thumbnail(image: NDArray[np.uint8] | None) -> str | None:
    if image is None:
        return None
    buffer = io.BytesIO()
    Image.fromarray(image).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=88)
    return _data_uri("jpeg", buffer.getvalue())


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _shown_angle(value: float | None) -> str:
    return "–" if value is None else angle(value)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{round(100 * value)}%"
