"""Tables of axes and directions, and the spread of ID vectors, for the terminal."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from rich.table import Table

from id3pm.idspace.directions import Directions, Score
from id3pm.idspace.pca import Pca
from id3pm.idspace.vectors import Floats, mean_vector, unit


def spread(vectors: ArrayLike) -> Floats:
    """Angles [N] in degrees between ID vectors [N, D] and their mean.

    Raises:
        InvalidInputError: See `mean_vector`.
    """
    centre = mean_vector(vectors).astype(np.float64)
    rows = unit(vectors)
    angles = 2.0 * np.arctan2(np.linalg.norm(rows - centre, axis=1), np.linalg.norm(rows + centre, axis=1))
    return np.asarray(np.degrees(angles))


def pca_table(pca: Pca) -> Table:
    """Explained variance along the first 1, 2, 4, ... axes."""
    table = Table(
        title=f"{len(pca.axes)} axes of {pca.space.id_vector_model} vectors [{pca.space.identity_dim}]",
        caption=f"fitted to: {pca.trained_on}",
    )
    for heading in ("axes", "standard deviation of the last", "variance explained by all"):
        table.add_column(heading, justify="right")
    count = 1
    while count <= len(pca.axes):
        deviation = float(pca.variances[count - 1]) ** 0.5
        table.add_row(str(count), f"{deviation:.3f}", f"{float(pca.explained[:count].sum()):.1%}")
        count *= 2
    return table


def directions_table(directions: Directions) -> Table:
    """One row for each direction, with 95 % confidence intervals."""
    space = directions.space
    table = Table(
        title=f"{len(directions)} directions for {space.id_vector_model} vectors [{space.identity_dim}]",
        caption="accuracy and R2: of 5-fold cross-validation",
    )
    for heading in ("name", "from", "to", "step", "accuracy", "R2", "orthogonal to"):
        table.add_column(heading)
    for name, direction in directions.items():
        card = direction.card
        accuracy, r2 = scores(card.score)
        table.add_row(name, card.low, card.high, f"{card.step:.3f}", accuracy, r2, ", ".join(card.orthogonal_to))
    return table


def scores(score: Score | None) -> tuple[str, str]:
    """Accuracy and R2 with their intervals; empty where there is none."""
    if score is None:
        return "", ""
    low, high = score.accuracy_interval
    accuracy = f"{score.accuracy:.3f} ({low:.3f} .. {high:.3f})"
    if score.r2 is None or score.r2_interval is None:
        return accuracy, ""
    return accuracy, f"{score.r2:.2f} ({score.r2_interval[0]:.2f} .. {score.r2_interval[1]:.2f})"
