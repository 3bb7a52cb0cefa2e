"""Fitting a custom direction to labelled ID vectors, with scikit-learn (extra `latent`)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from id3pm.errors import InvalidInputError, MissingExtraError
from id3pm.idspace.directions import Card, Direction, Model, Score
from id3pm.idspace.space import Space
from id3pm.idspace.vectors import Floats, real, unit
from id3pm.installation import how_to_install

FOLDS = 5
RESAMPLES = 1000
Z_95 = 1.959963984540054  # two-sided 95 % of the normal distribution


def fit_direction(
    vectors: ArrayLike,
    labels: ArrayLike,
    *,
    name: str,
    label: str,
    low: str,
    high: str,
    id_vector_model: str,
    trained_on: str,
    model: Model | None = None,
    penalty: float = 1.0,
    seed: int = 0,
) -> Direction:
    """The direction along which a label grows: the normal of a logistic or linear regression.

    Against the difference of the classes' means, which is the other usual choice, the normal changes the label more for
    what it costs in identity: it leaves out what only goes along with the label.

    Args:
        vectors: ID vectors [N, D], each of another person: pictures of one person on both sides of a fold would make
            the score too good.
        labels: [N]; two values for a logistic regression.
        name: See `Card`.
        label: See `Card`.
        low: See `Card`.
        high: See `Card`.
        id_vector_model: The FR model of the vectors.
        trained_on: See `Card`.
        model: `None` takes `logistic` for labels of two values, else `linear`.
        penalty: L2 penalty on the weights, for vectors scaled to standard deviation 1; matters where N is small.
        seed: Of the folds and of the bootstrap.

    Raises:
        InvalidInputError: The arrays do not fit each other, the labels are all the same, not of two values for a
            logistic regression, or too few for `FOLDS` folds.
        MissingExtraError: scikit-learn is not installed.
    """
    rows, truth = unit(vectors, name="vectors"), real(labels, "labels")
    if rows.ndim != 2 or truth.shape != rows.shape[:1]:
        raise InvalidInputError(f"vectors {list(rows.shape)} and labels {list(truth.shape)}: need [N, D] and [N]")
    values, counts = np.unique(truth, return_counts=True)
    model = model or ("logistic" if len(values) == 2 else "linear")
    if len(values) < 2 or (model == "logistic" and len(values) != 2):
        raise InvalidInputError(
            f"the labels have {len(values)} values: need {'2' if model == 'logistic' else 'several'}"
        )
    if len(rows) < 2 * FOLDS or (model == "logistic" and counts.min() < FOLDS):
        raise InvalidInputError(f"{len(rows)} labelled vectors, {counts.min()} of one kind: too few for {FOLDS} folds")
    # One factor for all numbers, which leaves the directions as they are.
    scaled = (rows - rows.mean(axis=0)) / rows.std(axis=0).mean()
    regression, folds, target = _regression(model, penalty, seed, truth, values)
    predicted = _out_of_fold(regression, folds, scaled, target, model)
    weights = np.ravel(regression.fit(scaled, target).coef_).astype(np.float64)
    if not np.linalg.norm(weights) > 0:
        raise InvalidInputError("the labels do not depend on the vectors: no direction")
    vector = weights / np.linalg.norm(weights)
    card = Card(
        name=name,
        label=label,
        low=low,
        high=high,
        step=float((rows @ vector).std()),
        model=model,
        score=score(model, target, predicted, seed),
        trained_on=trained_on,
    )
    return Direction(Space(id_vector_model=id_vector_model, identity_dim=rows.shape[1]), vector, card)


def _regression(model: Model, penalty: float, seed: int, truth: Floats, values: Floats) -> tuple[Any, Any, Floats]:
    """A regression, its folds, and the labels as it takes them: 0 and 1, or standardised."""
    try:
        from sklearn.linear_model import LogisticRegression, Ridge
        from sklearn.model_selection import KFold, StratifiedKFold
    except ImportError as error:
        raise MissingExtraError(f"fitting needs scikit-learn: {how_to_install('latent')}") from error
    if model == "logistic":
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
        return LogisticRegression(C=1.0 / penalty, max_iter=1000), folds, (truth == values[1]).astype(np.float64)
    return Ridge(alpha=penalty), KFold(FOLDS, shuffle=True, random_state=seed), (truth - truth.mean()) / truth.std()


def _out_of_fold(regression: Any, folds: Any, vectors: Floats, target: Floats, model: Model) -> Floats:
    """Predictions [N], each by a regression that did not see the vector: log-odds, or labels."""
    predicted = np.empty(len(vectors))
    for train, test in folds.split(vectors, target):
        fitted = regression.fit(vectors[train], target[train])
        predict = fitted.decision_function if model == "logistic" else fitted.predict
        predicted[test] = predict(vectors[test])
    return predicted


def score(model: Model, target: Floats, predicted: Floats, seed: int) -> Score:
    """See `Score`; target and predictions [N] as `_out_of_fold` has them."""
    middle = 0.5 if model == "logistic" else float(np.median(target))
    above = target > middle
    right = int(np.sum((predicted > (0.0 if model == "logistic" else middle)) == above))
    count = len(target)
    share = float(above.mean())
    found = Score(
        accuracy=right / count,
        accuracy_interval=wilson(right, count),
        baseline=max(share, 1.0 - share),
        count=count,
    )
    if model == "logistic":
        return found
    random = np.random.Generator(np.random.Philox(seed))
    draws = (random.integers(0, count, count) for _ in range(RESAMPLES))
    resampled = [r_squared(target[rows], predicted[rows]) for rows in draws]
    low, high = np.quantile(resampled, [0.025, 0.975])
    return dataclasses.replace(found, r2=r_squared(target, predicted), r2_interval=(float(low), float(high)))


def r_squared(target: Floats, predicted: Floats) -> float:
    """R^2 of predictions [N]: 1 - residual variance / variance; below 0 where they are worse than the mean."""
    return 1.0 - float(np.sum((target - predicted) ** 2) / np.sum((target - target.mean()) ** 2))


def wilson(right: int, count: int) -> tuple[float, float]:
    """95 % confidence interval of a share `right` / `count` (Wilson 1927, score interval without correction)."""
    share, z2 = right / count, Z_95**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z_95 / (1 + z2 / count) * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2))
    return max(centre - half, 0.0), min(centre + half, 1.0)
