"""The ID-vector space on the page: between people, along principal axes, along custom directions."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from id3pm.page.people import Vector
from id3pm.page.user_messages import PageError
from id3pm_client import InvalidRequestError
from id3pm_client.latent import Directions, Pca, slerp

SHOWN_AXES = 5
"""Number of axes with a slider; the first ones change a face most."""
FARTHEST = 5.0
"""Standard deviations; the sheets of the documentation go as far."""


@dataclasses.dataclass(frozen=True)
class Slider:
    """One slider: a principal axis or a custom direction.

    Attributes:
        name: Name of the page's element.
        label: Label on the page.
        help: Meaning of its ends.
        limit: Its range is -limit to limit.
        step: Its smallest step.
        id_vector_model: The FR model whose vectors it moves.
        move: Vector and amount -> vector.
    """

    name: str
    label: str
    help: str
    limit: float
    step: float
    id_vector_model: str
    move: Callable[..., Vector]


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


@dataclasses.dataclass(frozen=True)
class Space:
    """Axes and directions of a bundle's ID vectors; either may be missing.

    Attributes:
        axes: Principal axes.
        directions: Custom directions.
    """

    axes: Pca | None = None
    directions: Directions | None = None

    @classmethod
    def load(cls, folder: Path) -> Space:
        """Reads a bundle's `latent` folder, which need not exist.

        Raises:
            InvalidRequestError: A file is damaged.
        """
        axes, directions = folder / "pca.npz", folder / "directions.npz"
        return cls(
            Pca.load(axes) if axes.is_file() else None, Directions.load(directions) if directions.is_file() else None
        )

    @functools.cached_property
    def sliders(self) -> list[Slider]:
        """The directions, which have a meaning, before the axes."""
        found = []
        if self.directions is not None:
            for name, one in self.directions.items():
                ends = f"From {one.low} to {one.high}."
                found.append(
                    Slider(
                        name,
                        name.replace("_", " ").capitalize(),
                        ends,
                        FARTHEST,
                        0.5,
                        self.directions.id_vector_model,
                        one.apply,
                    )
                )
        if self.axes is not None:
            for axis in range(SHOWN_AXES):
                walk = functools.partial(_along, self.axes, axis)
                title = f"Axis {axis + 1}"
                found.append(Slider(f"axis-{axis + 1}", title, "", 1.0, 0.05, self.axes.id_vector_model, walk))
        return found

    def walk(self, vector: Vector, amounts: Sequence[float], id_vector_model: str | None) -> Vector:
        """The vector moved by every slider.

        Args:
            vector: ID vector `[D]`.
            amounts: None, or one per slider: standard deviations along a direction, the vector's L2 norms along an
                axis.
            id_vector_model: The FR model of the vector, or `None` where the service does not say.

        Raises:
            PageError: A slider belongs to another FR model.
        """
        for slider, amount in zip(self.sliders, amounts, strict=False):
            if not amount:
                continue
            if id_vector_model not in (None, slider.id_vector_model):
                raise PageError(
                    "These sliders do not fit this service.",
                    f"Its faces are described by {id_vector_model}, the directions by {slider.id_vector_model}: please "
                    "leave them at 0.",
                )
            vector = slider.move(vector, float(amount))
        return vector


def _along(axes: Pca, axis: int, vector: Vector, amount: float) -> Vector:
    return axes.walk(vector, axis, amount)
