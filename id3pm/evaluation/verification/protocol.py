"""The arithmetic of two published protocols: from embeddings of pairs to the accuracy of ten folds.

`paper`: facenet's validate_on_lfw.py with flipped images, subtracted mean and the cosine metric (Sandberg), which
Kansy et al. 2023 (supplement, section 1) describe. `insightface`: its eval/verification.py, which descends from it.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from id3pm.evaluation.verification.pairs import fold_slices

ProtocolName = Literal["paper", "insightface"]
THRESHOLDS = np.arange(0, 4, 0.01)
"""Tried in this order; a distance strictly below the threshold takes a pair for one person."""
Floats = NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Protocol:
    """One way to compare pairs.

    Attributes:
        combine: Embeddings of picture and mirror image, float64 [..., 2, D] -> one vector each, [..., E].
        distance: Of vectors [P, E] and [P, E]: [P].
        subtract_mean: Of all vectors of the nine training folds, from every vector.
        text: For reports.
    """

    combine: Callable[[Floats], Floats]
    distance: Callable[[Floats, Floats], Floats]
    subtract_mean: bool
    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accuracy:
    """What a protocol makes of one set of pairs.

    Attributes:
        mean: Over the folds, 0 .. 1.
        std: Over the folds, with ddof 0, as both originals print it.
        folds: Accuracy of each fold.
        threshold: Mean of the folds' thresholds, in the protocol's distance.
        pairs: How many there are.
        undecided: Pairs without an embedding of either picture, which are wrong decisions.
    """

    mean: float
    std: float
    folds: tuple[float, ...]
    threshold: float
    pairs: int
    undecided: int


def accuracy(name: ProtocolName, views: NDArray[np.floating[Any]], same: NDArray[np.bool_]) -> Accuracy:
    """The accuracy of a protocol.

    Args:
        name: Of the protocol.
        views: Embeddings as the network gives them, [P, 2, 2, D]: pairs, their two pictures, picture and mirror image.
            NaN where no face was found: that pair is a wrong decision, whatever the threshold.
        same: Whether a pair shows one person, bool [P].
    """
    protocol = PROTOCOLS[name]
    vectors = protocol.combine(views.astype(np.float64))  # [P, 2, E]
    accuracies, thresholds = [], []
    for test in fold_slices(len(same)):
        train = np.ones(len(same), bool)
        train[test] = False
        distances = _distances(protocol, vectors, train)
        best = THRESHOLDS[np.argmax(_right(distances[train], same[train]))]  # the first of equally good ones
        accuracies.append(float(_right(distances[test], same[test], np.array([best]))[0]) / len(same[test]))
        thresholds.append(best)
    return Accuracy(
        mean=float(np.mean(accuracies)),
        std=float(np.std(accuracies)),
        folds=tuple(accuracies),
        threshold=float(np.mean(thresholds)),
        pairs=len(same),
        undecided=int(np.isnan(vectors).any(axis=(1, 2)).sum()),
    )


def _distances(protocol: Protocol, vectors: Floats, train: NDArray[np.bool_]) -> Floats:
    """Of all pairs, [P]; NaN where there is no face."""
    if protocol.subtract_mean:
        known = vectors[train].reshape(-1, vectors.shape[-1])
        known = known[np.isfinite(known).all(axis=1)]
        if len(known):
            vectors = vectors - known.mean(axis=0)
    return protocol.distance(vectors[:, 0], vectors[:, 1])


def _right(distances: Floats, same: NDArray[np.bool_], thresholds: Floats = THRESHOLDS) -> NDArray[np.int64]:
    """Right decisions at each threshold; NaN is a wrong one at all."""
    decided = np.isfinite(distances)
    taken = distances[decided] < thresholds[:, None]
    right: NDArray[np.int64] = (taken == same[decided]).sum(axis=1)
    return right


def _concatenated(views: Floats) -> Floats:
    """FaceNet's embeddings have L2 norm 1 by themselves; those of other models are scaled to it."""
    unit = views / np.linalg.norm(views, axis=-1, keepdims=True)
    joined: Floats = unit.reshape(*views.shape[:-2], -1)
    return joined


def _summed(views: Floats) -> Floats:
    total = views.sum(axis=-2)
    unit: Floats = total / np.linalg.norm(total, axis=-1, keepdims=True)
    return unit


def _angle(first: Floats, second: Floats) -> Floats:
    """arccos(cos) / pi, 0 .. 1. Rounding beyond 1, where the original's arccos gives NaN, is cut off."""
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosines = np.divide((first * second).sum(axis=1), norms, out=np.full(len(first), np.nan), where=norms > 0)
    angles: Floats = np.arccos(cosines.clip(-1.0, 1.0)) / np.pi
    return angles


def _squared(first: Floats, second: Floats) -> Floats:
    squares: Floats = np.square(first - second).sum(axis=1)
    return squares


PROTOCOLS: Mapping[str, Protocol] = types.MappingProxyType(
    {
        "paper": Protocol(
            combine=_concatenated,
            distance=_angle,
            subtract_mean=True,
            text="embeddings of picture and mirror image concatenated, mean of the nine training folds subtracted, "
            "angular distance",
        ),
        "insightface": Protocol(
            combine=_summed,
            distance=_squared,
            subtract_mean=False,
            text="sum of the embeddings of picture and mirror image, normalised, squared Euclidean distance",
        ),
    }
)
