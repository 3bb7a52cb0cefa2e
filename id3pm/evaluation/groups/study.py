"""Similarity of generated faces to their targets by group, with intervals (Fig. 9 of the supplement)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from id3pm.evaluation.figures.diversity import interval
from id3pm.evaluation.groups.labels import NO_LABEL
from id3pm.evaluation.verification.similarities import Floats

ALL = "all"


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupResult:
    """One judge's opinion of one group.

    Attributes:
        judge: Its name.
        group: The label; `all` for everyone, with or without a label.
        people: How many.
        similarity: Mean cosine similarity over people, of the images with a face; NaN without any.
        low: Lower end of its 95 % interval (bootstrap over people).
        high: Upper end.
        accepted: Share of the images that reach the judge's verification threshold; an image without a face does not.
        no_face: Share of the images without a face.
    """

    judge: str
    group: str
    people: int
    similarity: float
    low: float
    high: float
    accepted: float
    no_face: float


def by_group(judge: str, similarities: Floats, groups: Sequence[str], threshold: float) -> list[GroupResult]:
    """Everyone, then each group in the order of its label.

    Args:
        judge: Its name.
        similarities: Of each image with its target, [people, seeds]; NaN where no face was found.
        groups: Of each person; people without a label count in `all` alone.
        threshold: Similarities from here on are taken for one person.
    """
    labels = np.array(groups)
    rows = [(ALL, np.ones(len(labels), bool))]
    rows += [(str(label), labels == label) for label in np.unique(labels) if label != NO_LABEL]
    return [_summary(judge, name, similarities[members], threshold) for name, members in rows]


def worst(similarities: Floats, count: int) -> list[int]:
    """The people whose images are least like them, worst first; those without any face come before.

    Args:
        similarities: [people, seeds]; NaN where no face was found.
        count: How many people.
    """
    known = np.isfinite(similarities)
    sums = np.where(known, similarities, 0.0).sum(axis=1)
    means = np.divide(sums, known.sum(axis=1), out=np.full(len(sums), -np.inf), where=known.any(axis=1))
    return [int(person) for person in np.argsort(means, kind="stable")[:count]]


def _summary(judge: str, group: str, similarities: Floats, threshold: float) -> GroupResult:
    known = np.isfinite(similarities)
    seen = known.any(axis=1)
    of_people = np.array([row[mask].mean() for row, mask in zip(similarities[seen], known[seen], strict=True)])
    low, high = interval(of_people.astype(np.float64))
    return GroupResult(
        judge=judge,
        group=group,
        people=len(similarities),
        similarity=float(of_people.mean()) if len(of_people) else float("nan"),
        low=low,
        high=high,
        accepted=float(np.mean(np.where(known, similarities, -1.0) >= threshold)),
        no_face=float(np.mean(~known)),
    )
