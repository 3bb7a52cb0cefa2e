"""Verification: similarities of face pairs, their distribution, accuracy of a threshold.

Huang et al., "Labeled Faces in the Wild", 2007, view 2: ten folds of people; in each, the threshold that is best on the
other nine decides. The result is the mean accuracy of the ten and its standard error.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import InvalidInputError

FOLDS = 10
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
BINS = np.linspace(-0.5, 1.0, 76)
"""Edges of the histograms; what lies outside is counted in the outermost bins."""
Floats = NDArray[np.floating[Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distribution:
    """Cosine similarities of many pairs.

    Attributes:
        count: Pairs with a similarity, that is, with a face in both pictures.
        mean: NaN where there is no pair, as all that follow.
        std: Standard deviation.
        quantiles: At `QUANTILES`.
        histogram: Pairs per bin of `BINS`.
    """

    count: int
    mean: float
    std: float
    quantiles: tuple[float, ...]
    histogram: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verification:
    """The outcome of the protocol.

    Attributes:
        accuracy: Mean over the folds, 0..1.
        standard_error: Of that mean.
        threshold: Mean of the folds' thresholds: pairs at or above are taken for one person.
        pairs: Genuine and impostor pairs together.
    """

    accuracy: float
    standard_error: float
    threshold: float
    pairs: int


def distribution(similarities: Floats) -> Distribution:
    """Describes similarities of any shape; NaN marks pairs in which a face was not found."""
    values = similarities[np.isfinite(similarities)].astype(np.float64)
    histogram, _ = np.histogram(values.clip(BINS[0], BINS[-1]), BINS)
    some = len(values) > 0
    return Distribution(
        count=len(values),
        mean=float(values.mean()) if some else float("nan"),
        std=float(values.std()) if some else float("nan"),
        quantiles=tuple(np.quantile(values, QUANTILES).tolist()) if some else (float("nan"),) * len(QUANTILES),
        histogram=tuple(histogram.tolist()),
    )


def folds_of(identities: int) -> NDArray[np.int64]:
    """The fold of each identity, int64 [identities]: ten blocks of nearly the same size.

    Raises:
        InvalidInputError: There are too few for two people per fold.
    """
    if identities < 2 * FOLDS:
        raise InvalidInputError(f"{identities} identities: the {FOLDS}-fold protocol needs at least {2 * FOLDS}")
    return np.arange(identities) * FOLDS // identities


def partners_of(identities: int) -> NDArray[np.int64]:
    """For each identity another one to be confused with, int64 [identities]: the next in the same fold, cyclically.

    So each is an impostor once, and folds share no person, as in LFW.
    """
    partners = np.empty(identities, np.int64)
    folds = folds_of(identities)
    for fold in range(FOLDS):
        members = np.flatnonzero(folds == fold)
        partners[members] = np.roll(members, -1)
    return partners


def verify(genuine: Floats, impostor: Floats, folds: NDArray[np.int64]) -> Verification:
    """Ten-fold verification accuracy.

    Args:
        genuine: Similarities of pairs of one person, [P]. NaN, where a face was not found, is a wrong decision, in
            either list: a picture without a face must not count as a person well told apart.
        impostor: Similarities of pairs of two people, [P].
        folds: The fold of each pair, for both lists.
    """
    same = np.concatenate([np.ones(len(genuine), bool), np.zeros(len(impostor), bool)])
    similarities = np.concatenate([genuine, impostor]).astype(np.float64)
    fold_of_pair = np.concatenate([folds, folds])
    accuracies, thresholds = [], []
    for fold in range(FOLDS):
        held_out = fold_of_pair == fold
        threshold = best_threshold(similarities[~held_out], same[~held_out])
        right = (similarities >= threshold) == same
        accuracies.append(np.mean((right & np.isfinite(similarities))[held_out]))
        thresholds.append(threshold)
    return Verification(
        accuracy=float(np.mean(accuracies)),
        standard_error=float(np.std(accuracies, ddof=1) / np.sqrt(FOLDS)),
        threshold=float(np.mean(thresholds)),
        pairs=len(similarities),
    )


def best_threshold(similarities: Floats, same: NDArray[np.bool_]) -> float:
    """The threshold of similarities [N] with the most right decisions: the middle one among midpoints of neighbours.

    NaN similarities are left out; without any other the threshold is 0.
    """
    seen = np.isfinite(similarities)
    values, same = similarities[seen], same[seen]
    if not len(values):
        return 0.0
    order = np.argsort(values, kind="stable")
    values, same = values[order], same[order]
    # Candidate i accepts values[i:]; the first accepts all, the last none.
    right = np.concatenate([[0], np.cumsum(~same)]) + np.concatenate([np.cumsum(same[::-1])[::-1], [0]])
    candidates = np.concatenate([values[:1], (values[1:] + values[:-1]) / 2, [np.nextafter(values[-1], np.inf)]])
    distinct = np.concatenate([[True], values[1:] > values[:-1], [True]])  # equal values cannot be told apart
    best = np.flatnonzero(distinct & (right == right[distinct].max()))
    return float(candidates[best[(len(best) - 1) // 2]])
