"""Moving about in the space of ID vectors, by the client's arithmetic: between two people, and along principal axes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from id3pm_client import InvalidRequestError
from id3pm_client.latent import Pca, slerp
from web.kindness import PageError
from web.people import Vector

SHOWN_AXES = 5
"""The first axes say most about a face; more sliders than these would only confuse."""


def blend(a: Vector, b: Vector, t: float) -> Vector:
    """The unit vector between `a` (t = 0) and `b` (t = 1), along the arc.

    Raises:
        PageError: There is no way between the two.
    """
    if a.shape != b.shape:
        raise PageError("These two people do not fit together.", "Please choose both of them again.")
    try:
        return slerp(a, b, t)
    except InvalidRequestError as error:
        raise PageError("There is no way between these two people.", f"Please choose another one. ({error})") from error


def load_axes(path: Path) -> Pca | None:
    """The axes in a PCA file; `None` where there is no such file.

    Raises:
        InvalidRequestError: The file is damaged.
    """
    return Pca.load(path) if path.is_file() else None


def walk(axes: Pca | None, vector: Vector, amounts: Sequence[float], id_vector_model: str | None) -> Vector:
    """The vector moved along the first axes.

    Args:
        axes: Where there are any.
        vector: ID vector `[D]`.
        amounts: One per axis, in units of the vector's L2 norm.
        id_vector_model: The FR model of the vector, or `None` where the service does not say.

    Raises:
        PageError: The axes belong to another FR model.
    """
    if axes is None or not any(amounts):
        return vector
    if id_vector_model not in (None, axes.id_vector_model):
        raise PageError(
            "These sliders do not fit this service.",
            f"Its faces are described by {id_vector_model}, the directions by {axes.id_vector_model}: please leave "
            "them at 0.",
        )
    for axis, amount in enumerate(amounts):
        if amount:
            vector = axes.walk(vector, axis, float(amount))
    return vector
