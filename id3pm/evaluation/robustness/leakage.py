"""Leakage: how much of a change of the portrait is in the ID vector, measured in the face generated from it.

The paper reads this off the pictures (supplement, section 5.2: pose, expression, hats are "copied"). Here a property is
measured in the picture and in the generated face, both relative to those of the original. With the same seed
everywhere, what returns has come through the vector. The slope of the least-squares line through the origin is the
share that returns: 0 for an ID vector that depends only on the person. Pictures of one person are not
independent, so its error is a bootstrap over people (Efron, 1979).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from id3pm.evaluation.robustness.portrait import Floats, Pixels
from id3pm.face.align import ARCFACE_TEMPLATE, similarity_transform
from id3pm.face.stage import FaceStage

PROPERTIES = {
    "turn of the head": "pose",
    "brightness of the face": "light",
    "colour of the light": "light",
}
"""Property -> the family of changes that moves it. Columns of `properties`, in this order.

Expressions are not among them: five landmarks of a detector hardly follow a bent mouth.
"""
LEAST = 6
"""Fewest pairs for a result."""
LEAST_PEOPLE = 3
"""Fewest people for an error."""
RESAMPLES = 2000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trace:
    """One property under one model.

    Attributes:
        model: Name of the model.
        name: Of the property.
        family: Of the changes that were looked at.
        pictures: How many pairs of a picture and its generated face, all people together.
        people: How many people they show.
        returns: Share of the change that comes back.
        error: Standard error of that share, by a bootstrap over people; `None` for fewer than `LEAST_PEOPLE`.
        correlation: Of the two changes, -1..1.
    """

    model: str
    name: str
    family: str
    pictures: int
    people: int
    returns: float
    error: float | None
    correlation: float


def properties(images: Sequence[Pixels | None], stage: FaceStage) -> NDArray[np.float64]:
    """The properties of the largest face in each picture.

    Args:
        images: P pictures of one size, uint8 [H, W, 3]; `None` has none.
        stage: Finds the faces.

    Returns:
        float64 [P, len(PROPERTIES)]: the nose tip along the line of the eyes, in distances between the eyes;
        mean grey level of the skin, and green over the mean of red and blue, as logarithms to base 2. NaN where there
        is no face.
    """
    found = np.full((len(images), len(PROPERTIES)), np.nan)
    rows = [row for row, image in enumerate(images) if image is not None]
    if rows:
        pictures = np.stack([image for image in images if image is not None])
        for row, picture, faces in zip(rows, pictures, stage.detect(pictures), strict=True):
            if len(faces):
                largest = faces[np.argmax(faces[:, 2] * faces[:, 3])]
                found[row] = _properties(picture, largest[4:14].reshape(5, 2).astype(np.float64))
    return found


def _properties(picture: Pixels, landmarks: NDArray[np.float64]) -> list[float]:
    left, right, nose = landmarks[:3]
    across = right - left
    red, green, blue = _skin(picture, landmarks) + 1.0
    return [
        float((nose - (left + right) / 2) @ across / (across @ across)),
        float(np.log2((red + green + blue) / 3)),
        float(np.log2(green / ((red + blue) / 2))),
    ]


def _skin(picture: Pixels, landmarks: NDArray[np.float64]) -> Floats:
    """Mean colour [3] between brows, cheeks and chin: the pixels that alignment would put there."""
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    matrix = similarity_transform(landmarks, ARCFACE_TEMPLATE)
    aligned = np.stack([x, y], axis=-1) @ matrix[:, :2].T + matrix[:, 2]
    inside = (np.abs(aligned[..., 0] - 56) < 26) & (aligned[..., 1] > 45) & (aligned[..., 1] < 105)
    colour: Floats = picture[inside].mean(axis=0) if inside.any() else np.zeros(3)
    return colour


def trace(
    model: str, name: str, shown: NDArray[np.float64], made: NDArray[np.float64], people: NDArray[np.int64]
) -> Trace | None:
    """The line through the origin that fits changes in generated faces to changes in pictures.

    Args:
        model: Name of the model.
        name: Of the property.
        shown: Its changes in the pictures, [N]; NaN where there was no face.
        made: Its changes in the generated faces, [N]; NaN where there is none.
        people: The person that each picture shows, [N]: equal numbers are one person.

    Returns:
        `None` where there are fewer than `LEAST` pairs, or nothing changed.
    """
    both = np.isfinite(shown) & np.isfinite(made)
    x, y, person = shown[both], made[both], people[both]
    if len(x) < LEAST or not (x.std() > 0 and y.std() > 0):
        return None
    # Sums of each person: a slope is the ratio of their totals in any sample.
    _, number = np.unique(person, return_inverse=True)
    products, powers = (np.bincount(number, weights).astype(np.float64) for weights in (x * y, x * x))
    return Trace(
        model=model,
        name=name,
        family=PROPERTIES[name],
        pictures=len(x),
        people=len(powers),
        returns=float(products.sum() / powers.sum()),
        error=_bootstrapped(products, powers),
        correlation=float(np.corrcoef(x, y)[0, 1]),
    )


def _bootstrapped(products: NDArray[np.float64], powers: NDArray[np.float64]) -> float | None:
    """Standard deviation of the slope over `RESAMPLES` draws of as many people, with replacement; the same each time.

    Args:
        products: Of each person, the sum of x y, [P].
        powers: The sum of x^2, [P].
    """
    moved = powers > 0  # people without a change carry no information, and such people alone give no slope
    products, powers = products[moved], powers[moved]
    if len(powers) < LEAST_PEOPLE:
        return None
    drawn = np.random.default_rng(0).integers(len(powers), size=(RESAMPLES, len(powers)))
    return float(np.std(products[drawn].sum(axis=1) / powers[drawn].sum(axis=1), ddof=1))
