"""The report on baselines: JSON, a table and a sheet of faces."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.evaluation.baselines.study import MethodResult, TargetSet
from id3pm.evaluation.files import SCHEMA, new_figure, save_figure, write_json, write_text
from id3pm.formats.images import encode_png

WHAT_IT_IS = (
    "Targets and generator are of 64 px, the methods are reimplemented from their published maths, and queries are "
    "fewer than published where the budget says so: a comparison on equal terms here, not the paper's numbers."
)
AT_HOME = (
    "GAN search looks among the images of the generator that made the held-out people: it is at home there, though "
    "they are not in its bank. The second set lies outside of its range."
)


def write_baseline_report(
    folder: Path, subject: Mapping[str, Any], notes: Sequence[str], results: Sequence[MethodResult]
) -> None:
    """Writes baselines.json and baselines.md; what was there before is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [dataclasses.asdict(result) for result in results]
    write_json(folder / "baselines.json", {"schema": SCHEMA, "subject": dict(subject), "notes": notes, "rows": rows})
    write_text(folder / "baselines.md", baseline_markdown(subject, notes, results))


def baseline_markdown(subject: Mapping[str, Any], notes: Sequence[str], results: Sequence[MethodResult]) -> str:
    """The results as a table."""
    judges = list(results[0].similarity)
    lines = [
        "# Ways to invert an FR model",
        "",
        ", ".join(f"{name} {value}" for name, value in subject.items()),
        "",
        f"Mean cosine of image and target by each judge, over images with a face (in brackets: share without one). "
        f"{judges[0]} is the black box. {WHAT_IT_IS} {AT_HOME}",
        "",
        f"| targets | method | {' | '.join(judges)} | queries per face | seconds per face |",
        "|---" * (len(judges) + 4) + "|",
        *(
            f"| {row.targets} | {row.method} | {' | '.join(_cell(row, judge) for judge in judges)} "
            f"| {_number(row.queries, 0)} | {_number(row.seconds, 1)} |"
            for row in results
        ),
        "",
        *(f"- {note}" for note in notes),
    ]
    return "\n".join(lines) + "\n"


def _cell(row: MethodResult, judge: str) -> str:
    missing = f" ({row.no_face[judge]:.0%})" if row.no_face[judge] else ""
    return _number(row.similarity[judge], 3) + missing


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def plot_baselines(
    file: Path, targets: TargetSet, images: Mapping[str, Sequence[NDArray[np.uint8]]], shown: int = 8
) -> None:
    """One row per target: its picture, then every method's images, seed by seed.

    Args:
        file: The picture.
        targets: The people.
        images: By method, for each target [seeds, H, W, 3].
        shown: Most targets.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    rows = min(shown, len(targets.images))
    columns = 1 + sum(len(of_method[0]) for of_method in images.values())
    figure = new_figure(width=1.4 * columns, height=1.5 * rows)
    panels = figure.subplots(rows, columns, squeeze=False)
    for row in range(rows):
        tiles = [("target", targets.images[row])]
        tiles += [(name, image) for name, of_method in images.items() for image in of_method[row]]
        for panel, (name, image) in zip(panels[row], tiles, strict=True):
            panel.imshow(image)
            panel.set_axis_off()
            if row == 0:
                panel.set_title(name, fontsize=8)
    save_figure(file, figure, generated=True)


def save_images(folder: Path, targets: TargetSet, images: Mapping[str, Sequence[NDArray[np.uint8]]]) -> None:
    """The first seed's pictures one by one: `targets/00.png`, `METHOD/00.png`, as a user study takes them."""
    everything = {"targets": list(targets.images)}
    everything |= {_folder_name(name): [of_target[0] for of_target in made] for name, made in images.items()}
    for name, pictures in everything.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, picture in enumerate(pictures):
            data = encode_png(picture, generated=name != "targets")
            (folder / name / f"{number:02d}.png").write_bytes(data)


def _folder_name(method: str) -> str:
    return method.lower().replace(" ", "_")
