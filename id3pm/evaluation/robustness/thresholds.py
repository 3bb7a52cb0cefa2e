"""Decision thresholds: the angle beyond which a model takes two pictures for two people, and its source.

The paper takes the threshold that decides best on real pairs of LFW (ten folds, mean of the folds' thresholds). The
same protocol runs here on people held out from training; since a GAN drew each of them once, the second picture of a
person is the first one flipped, slightly blurred and brightened. Two thresholds need no such pairs, only strangers:
those that one pair of strangers in 100, or in 1000, falls below. Where a model's authors published a threshold, it is
reported beside this one.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from id3pm.config import from_json, to_json
from id3pm.errors import ConfigError, InvalidInputError
from id3pm.evaluation.files import write_json
from id3pm.evaluation.identity.targets import altered
from id3pm.evaluation.judges import Judge
from id3pm.evaluation.verification.similarities import folds_of, partners_of, verify
from id3pm.face.manifest import PublishedThreshold

SHIPPED = "thresholds.json"
"""Thresholds of the embedded models, in this package; `id3pm analyse --data data/demo` measures them anew."""
FALSE_MATCHES = (0.01, 0.001)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Threshold:
    """One model's threshold.

    Attributes:
        judge: Name of the model.
        key: The model and the files it comes from; a threshold of another key does not apply.
        cosine: Pairs at or above are taken for one person.
        accuracy: Of the ten folds, 0..1.
        standard_error: Of that mean.
        strangers_accepted: Share of the pairs of strangers that the threshold takes for one person, 0..1.
        false_match_1_in_100: Cosine that one pair of strangers in a hundred exceeds.
        false_match_1_in_1000: The same for one in a thousand.
        accepted_at_published: The same share at the threshold that the model's authors published; `None` without one.
        people: Number of people.
        data: Name of the data set.
        center: Mean vector to subtract before angles are taken, or `None` for a model that needs none.
    """

    judge: str
    key: str
    cosine: float
    accuracy: float
    standard_error: float
    strangers_accepted: float
    false_match_1_in_100: float
    false_match_1_in_1000: float
    people: int
    data: str
    center: tuple[float, ...] | None = None
    accepted_at_published: float | None = None

    @property
    def degrees(self) -> float:
        """The threshold as an angle."""
        return degrees(self.cosine)


@overload
def degrees(cosine: float) -> float: ...
@overload
def degrees(cosine: NDArray[np.float64]) -> NDArray[np.float64]: ...
def degrees(cosine: float | NDArray[np.float64]) -> float | NDArray[np.float64]:
    """Arc cosine in degrees, of a number or an array; rounding errors beyond +-1 are cut off."""
    angle = np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))
    return float(angle) if np.ndim(cosine) == 0 else angle


def angles(
    first: NDArray[np.floating[Any]], second: NDArray[np.floating[Any]], center: tuple[float, ...] | None
) -> NDArray[np.float64]:
    """Angular distances in degrees, row by row; NaN where a vector is NaN.

    Args:
        first: Vectors [N, D].
        second: Vectors [N, D], or one [D] for all.
        center: Subtracted from both first, if it is given.
    """
    origin = np.zeros(first.shape[-1]) if center is None else np.array(center)
    a, b = first - origin, np.broadcast_to(second, first.shape) - origin
    cosines = np.einsum("nd,nd->n", a, b) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    found: NDArray[np.float64] = degrees(cosines)
    return found


def measure(
    judge: Judge, key: str, images: NDArray[np.uint8], data: str, published: PublishedThreshold | None = None
) -> Threshold:
    """The threshold of one model on people held out from training.

    Args:
        judge: The model.
        key: Of the model.
        images: One picture of each person, uint8 [N, S, S, 3].
        data: Name of the data set, for the report.
        published: The model's published threshold, to see how many strangers it accepts.

    Raises:
        InvalidInputError: There are too few people.
    """
    count = len(images)
    folds, partners = folds_of(count), partners_of(count)
    first, second = judge.embed(images), judge.embed(altered(images))
    center = np.nanmean(first, axis=0) if judge.centred else np.zeros(first.shape[1], first.dtype)
    first, second = _directions(first - center), _directions(second - center)
    genuine = np.einsum("nd,nd->n", second, first)
    found = verify(genuine, np.einsum("nd,nd->n", second, first[partners]), folds)
    strangers = (first @ first.T)[np.triu_indices(count, 1)]
    strangers = strangers[np.isfinite(strangers)]
    once, rarely = np.quantile(strangers, [1 - rate for rate in FALSE_MATCHES]).tolist()
    return Threshold(
        judge=judge.name,
        key=key,
        cosine=round(found.threshold, 4),
        accuracy=round(found.accuracy, 4),
        standard_error=round(found.standard_error, 4),
        strangers_accepted=round(float(np.mean(strangers >= found.threshold)), 6),
        accepted_at_published=(None if published is None else round(float(np.mean(strangers >= published.cosine)), 6)),
        false_match_1_in_100=round(once, 4),
        false_match_1_in_1000=round(rarely, 4),
        people=count,
        data=data,
        center=tuple(round(float(value), 6) for value in center) if judge.centred else None,
    )


def _directions(vectors: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    unit: NDArray[np.floating[Any]] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def write(file: Path, thresholds: Mapping[str, Threshold]) -> None:
    """Writes thresholds as JSON, for `--thresholds` of a later run."""
    write_json(file, [to_json(threshold) for threshold in thresholds.values()])


def read(file: Path | None = None) -> dict[str, Threshold]:
    """Thresholds by key, from a file that an earlier run wrote, or those of the embedded models.

    Raises:
        InvalidInputError: The file is not one.
    """
    source = resources.files("id3pm.evaluation.robustness").joinpath(SHIPPED) if file is None else file
    try:
        found = [from_json(Threshold, entry) for entry in json.loads(source.read_text(encoding="utf-8"))]
    except (ValueError, TypeError, ConfigError) as error:
        raise InvalidInputError(f"{source.name} has no thresholds of `id3pm analyse --data`: {error}") from error
    return {threshold.key: threshold for threshold in found}
