"""The study: ID vectors of all pictures of a person under each model, and the faces generated from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import NoFaceError
from id3pm.evaluation.judges import Judge
from id3pm.evaluation.robustness.leakage import properties
from id3pm.evaluation.robustness.portrait import SIZE
from id3pm.evaluation.robustness.thresholds import Threshold, angles
from id3pm.evaluation.robustness.variants import MEAN, ORIGINAL, STYLE, Picture
from id3pm.face.manifest import PublishedThreshold
from id3pm.pipeline import Pipeline

CHUNK = 16
"""Images that are requested at a time: as many as the scheduler takes, so that progress is shown."""
Angles = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """One person, or unrelated pictures.

    Attributes:
        name: For headings and file names.
        pictures: The pictures. A person's begin with the original and end with the mean, which has no picture.
        person: Whether they all show one person, the one of the first picture.
    """

    name: str
    pictures: tuple[Picture, ...]
    person: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Opinion:
    """Angular distances in degrees as one judge sees them, float64 [P], one per picture; NaN where there is no face.

    Attributes:
        judge: Its name.
        independent: Whether it is not the model whose ID vectors are inverted.
        threshold: Beyond which it takes two pictures for two people; `None` where it was not measured.
        published: The threshold that its authors published, if they did.
        drift: The picture against the original: the effect of the change on recognition.
        kept: The image generated from the picture's ID vector against the original: the identity that is kept.
        own: That image against the changed picture itself: the error of the inversion.
    """

    judge: str
    independent: bool
    threshold: Threshold | None
    drift: Angles
    kept: Angles
    own: Angles
    published: PublishedThreshold | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """One subject under one model.

    Attributes:
        model: Name of the model.
        subject: The pictures.
        images: Generated from the ID vector of each picture, uint8 [S, S, 3]; `None` where no face was found.
        opinions: Of the model itself first, then of independent ones.
        shown: Properties of each picture, see `id3pm.evaluation.robustness.leakage.properties`.
        made: The same of the images.
    """

    model: str
    subject: Subject
    images: tuple[NDArray[np.uint8] | None, ...]
    opinions: tuple[Opinion, ...]
    shown: NDArray[np.float64]
    made: NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A face-recognition model with the diffusion model that inverts it.

    Attributes:
        name: Unique in the report.
        bundle: Name of the diffusion model.
        id_vector_model: Name of the face-recognition model.
        pipeline: Generates and finds faces.
        judges: The face-recognition model first, then independent ones.
        thresholds: Of each judge, measured.
        published: Of each judge, where its authors published one.
    """

    name: str
    bundle: str
    id_vector_model: str
    pipeline: Pipeline
    judges: tuple[Judge, ...]
    thresholds: tuple[Threshold | None, ...]
    published: tuple[PublishedThreshold | None, ...]


def study(
    model: Model,
    subject: Subject,
    seed: int,
    options: dict[str, Any],
    super_resolution: bool = False,
    progress: Callable[[int], None] = lambda count: None,
) -> Block:
    """Embeds every picture, inverts its ID vector, and embeds the result.

    Args:
        model: The model.
        subject: The pictures.
        seed: Seed of every image, as in the paper, so that images differ only by their ID vectors.
        options: See `Pipeline.generate`.
        super_resolution: Whether to generate 256 px images instead of 64 px images.
        progress: Called with the number of pictures that are done.

    Raises:
        NoFaceError: The model finds no face in the original.
    """
    seen = [_vectors(judge, subject) for judge in model.judges]
    if subject.person and not np.isfinite(seen[0][0]).all():
        raise NoFaceError(f"{subject.name}: {model.name} finds no face in the original once it is framed")
    images: list[NDArray[np.uint8] | None] = [None] * len(subject.pictures)
    usable = np.flatnonzero(np.isfinite(seen[0]).all(axis=1))
    progress(len(images) - len(usable))
    for start in range(0, len(usable), CHUNK):
        rows = usable[start : start + CHUNK]
        made = _generate(model.pipeline, seen[0][rows], seed, options, super_resolution)
        for row, image in zip(rows.tolist(), made, strict=True):
            images[row] = image
        progress(len(rows))
    opinions = [
        dataclasses.replace(_opinion(judge, threshold, subject, vectors, images), published=published)
        for judge, threshold, published, vectors in zip(
            model.judges, model.thresholds, model.published, seen, strict=True
        )
    ]
    stage = model.pipeline.face_stage
    shown = properties([picture.image for picture in subject.pictures], stage)
    return Block(model.name, subject, tuple(images), tuple(opinions), shown, properties(images, stage))


def _vectors(judge: Judge, subject: Subject) -> NDArray[np.float32]:
    """Vectors [P, D] of the pictures; a person's last is the mean of the changed ones that count, at length 1."""
    pictures = [picture.image for picture in subject.pictures]
    shown = np.stack([image if image is not None else np.zeros((SIZE, SIZE, 3), np.uint8) for image in pictures])
    vectors = judge.embed(shown)
    for row, picture in enumerate(subject.pictures):
        if picture.family == MEAN:
            seen = vectors[averaged(subject.pictures)]
            seen = seen[np.isfinite(seen).all(axis=1)]
            mean = seen.mean(axis=0) if len(seen) else np.full(vectors.shape[1], np.nan)
            vectors[row] = mean if judge.centred else mean / np.linalg.norm(mean)
    return vectors


def averaged(pictures: Sequence[Picture]) -> list[int]:
    """Numbers of the pictures whose vectors the mean is of.

    Without the original, against which the mean is judged; and without drawings, an experiment of their own: the
    paper's mean is over pictures that cameras take.
    """
    return [row for row, picture in enumerate(pictures) if picture.family not in (ORIGINAL, STYLE, MEAN)]


def _generate(
    pipeline: Pipeline, vectors: NDArray[np.float32], seed: int, options: dict[str, Any], super_resolution: bool
) -> NDArray[np.uint8]:
    if super_resolution:
        return pipeline.generate(vectors, seed, **options).images
    return pipeline.generate_64(vectors, seed, **options)


def _opinion(
    judge: Judge,
    threshold: Threshold | None,
    subject: Subject,
    pictures: NDArray[np.float32],
    images: Sequence[NDArray[np.uint8] | None],
) -> Opinion:
    made = np.full_like(pictures, np.nan)
    rows = [row for row, image in enumerate(images) if image is not None]
    if rows:
        made[rows] = judge.embed(np.stack([image for image in images if image is not None]))
    center = None if threshold is None else threshold.center
    nowhere = np.full(len(pictures), np.nan)
    drift = angles(pictures, pictures[0], center) if subject.person else nowhere
    if subject.person and subject.pictures[0].family == ORIGINAL:
        drift[0] = 0.0  # and not the arc cosine of a rounding error
    return Opinion(
        judge=judge.name,
        independent=judge.independent,
        threshold=threshold,
        drift=drift,
        kept=angles(made, pictures[0], center) if subject.person else nowhere,
        own=angles(made, pictures, center),
    )
