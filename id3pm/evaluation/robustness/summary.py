"""Summaries of the angles: per family of changes, for each model, and in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from id3pm.evaluation.robustness.leakage import PROPERTIES, Trace, trace
from id3pm.evaluation.robustness.study import Angles, Block
from id3pm.evaluation.robustness.thresholds import degrees
from id3pm.evaluation.robustness.variants import MEAN, ORIGINAL, PHOTOGRAPHS, STYLE, VARIANTS, Picture

ORDER = (ORIGINAL, PHOTOGRAPHS, *VARIANTS, MEAN)
NAMES = {STYLE: "out of distribution", PHOTOGRAPHS: "other photographs", MEAN: "mean ID vector"}
"""Headings of families whose key is not a good heading."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """One family under one judge of one model, over all people.

    Attributes:
        model: Name of the model whose ID vectors are inverted.
        judge: The FR model that judges.
        independent: Whether the judge is another model.
        family: Of the changes.
        pictures: How many, all people together.
        no_face: In how many of them no face was found.
        recognised: Share of all of them that the judge takes for the original person: a face, and below the threshold;
            `None` without a threshold.
        recognised_published: The same by the threshold that the judge's authors published; `None` without one.
        drift: Mean angle to the original in degrees, where there is a face; `None` where there is none.
        kept: Share of all of them whose generated image the judge takes for the original person.
        kept_published: The same by the published threshold.
        kept_angle: Mean angle of those generated images to the original.
        own_angle: Mean angle of those generated images to the very picture they were made from.
    """

    model: str
    judge: str
    independent: bool
    family: str
    pictures: int
    no_face: int
    recognised: float | None
    recognised_published: float | None
    drift: float | None
    kept: float | None
    kept_published: float | None
    kept_angle: float | None
    own_angle: float | None


def named(family: str) -> str:
    """The heading of a family."""
    return NAMES.get(family, family)


def bands(pictures: Sequence[Picture]) -> dict[str, list[int]]:
    """Family -> numbers of its pictures, in the order of a report; the mean stands beside the original."""
    found: dict[str, list[int]] = {}
    for family in ORDER:
        rows = [row for row, picture in enumerate(pictures) if picture.family == family]
        if rows:
            found.setdefault(ORIGINAL if family == MEAN else family, []).extend(rows)
    return found


def summarise(blocks: Sequence[Block]) -> list[Line]:
    """Lines of every model, judge and family that occurs, in this order; pictures without a person are left out."""
    people = [block for block in blocks if block.subject.person]
    lines = []
    for model in dict.fromkeys(block.model for block in people):
        of_model = [block for block in people if block.model == model]
        for judge in range(len(of_model[0].opinions)):
            lines += [line for family in ORDER for line in [_line(of_model, judge, family)] if line is not None]
    return lines


def _line(blocks: Sequence[Block], judge: int, family: str) -> Line | None:
    rows = [
        (block.opinions[judge], row)
        for block in blocks
        for row, picture in enumerate(block.subject.pictures)
        if picture.family == family
    ]
    if not rows:
        return None
    opinion = rows[0][0]
    drift, kept, own = (
        np.array([getattr(found, name)[row] for found, row in rows]) for name in ("drift", "kept", "own")
    )
    limit = None if opinion.threshold is None else opinion.threshold.degrees
    published = None if opinion.published is None else degrees(opinion.published.cosine)
    return Line(
        model=blocks[0].model,
        judge=opinion.judge,
        independent=opinion.independent,
        family=family,
        pictures=len(rows),
        no_face=int(np.isnan(drift).sum()),
        recognised=_share(drift, limit),
        recognised_published=_share(drift, published),
        drift=_mean(drift),
        kept=_share(kept, limit),
        kept_published=_share(kept, published),
        kept_angle=_mean(kept),
        own_angle=_mean(own),
    )


def _share(angles: Angles, limit: float | None) -> float | None:
    """Share of all pictures whose angle is at most the limit; NaN, where there is no face, is none."""
    return None if limit is None else float(np.mean(angles <= limit))


def _mean(angles: Angles) -> float | None:
    return float(np.nanmean(angles)) if np.isfinite(angles).any() else None


def traces(blocks: Sequence[Block]) -> list[Trace]:
    """Leakage into generated faces, for every model and property with enough pictures."""
    found = []
    for model in dict.fromkeys(block.model for block in blocks):
        of_model = [block for block in blocks if block.model == model and block.subject.person]
        for column, (name, family) in enumerate(PROPERTIES.items()):
            shown, made, people = [np.empty(0)], [np.empty(0)], [np.empty(0, np.int64)]
            for person, block in enumerate(of_model):
                rows = [row for row, picture in enumerate(block.subject.pictures) if picture.family == family]
                shown.append(block.shown[rows, column] - block.shown[0, column])
                made.append(block.made[rows, column] - block.made[0, column])
                people.append(np.full(len(rows), person, np.int64))
            found.append(trace(model, name, np.concatenate(shown), np.concatenate(made), np.concatenate(people)))
    return [trace for trace in found if trace is not None]


def readings(lines: Sequence[Line]) -> list[str]:
    """The main findings, a sentence or two for each model's own opinion."""
    said = []
    for model in dict.fromkeys(line.model for line in lines):
        own = [line for line in lines if line.model == model and not line.independent]
        made = [line for line in own if line.family in VARIANTS and line.recognised is not None]
        if made:
            ranked = sorted(made, key=lambda line: (-(line.recognised or 0.0), line.drift or 0.0))
            shares = ", ".join(f"{named(line.family)} {line.recognised:.0%}" for line in ranked)
            said.append(f"{model} still recognises the person in this share of the changed pictures: {shares}.")
            kept = _over_all(made, "kept")
            unchanged = ", ".join(f"{line.kept:.0%}" for line in own if line.family == ORIGINAL)
            said.append(
                f"{model} takes {kept:.0%} of the images generated from changed pictures for the original person; of "
                f"those from the unchanged originals, {unchanged}."
            )
            if made[0].recognised_published is not None:
                said.append(
                    f"{model} by its published threshold instead: {_over_all(made, 'recognised_published'):.0%} of the "
                    f"changed pictures are recognised (by the measured one {_over_all(made, 'recognised'):.0%}), and "
                    f"{_over_all(made, 'kept_published'):.0%} of the images generated from them ({kept:.0%})."
                )
        faces = [
            f"{NAMES.get(line.family, line.family)} {line.no_face} of {line.pictures}" for line in own if line.no_face
        ]
        if faces:
            said.append(f"{model}: no face was found in {', '.join(faces)} pictures.")
        said += [_about_mean(own, line) for line in own if line.family == MEAN and line.drift is not None]
    return said


def _over_all(lines: Sequence[Line], share: str) -> float:
    """A share over the pictures of all these lines."""
    counted = sum((getattr(line, share) or 0.0) * line.pictures for line in lines)
    return float(counted / sum(line.pictures for line in lines))


def _about_mean(own: Sequence[Line], mean: Line) -> str:
    counted = [line for line in own if line.family not in (STYLE, MEAN, ORIGINAL) and line.kept_angle is not None]
    weights = [line.pictures - line.no_face for line in counted]
    single = np.average([line.kept_angle or 0.0 for line in counted], weights=weights) if counted else np.nan
    shown = "no face" if mean.kept_angle is None else f"{mean.kept_angle:.0f}°"
    return (
        f"{mean.model}: the mean of the ID vectors of the changed pictures lies {mean.drift or 0.0:.0f}° from the "
        f"original, which is not among them; its image lies {shown} away, those of single ones {single:.0f}° on "
        "average."
    )
