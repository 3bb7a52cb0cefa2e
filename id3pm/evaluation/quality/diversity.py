"""Diversity of the images of one person over seeds: pose, expression, features, ID vectors.

As the diversity table of Kansy et al. 2023: distances within the pairs of each person's images and distances of their
ID vectors to the target's, mean over people.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from id3pm.errors import EngineMissingError, MissingExtraError
from id3pm.evaluation.figures.diversity import interval, vectors_apart
from id3pm.evaluation.figures.landmark_judge import LandmarkJudge
from id3pm.evaluation.quality.lpips import Lpips
from id3pm.face.landmarks import FaceMesh
from id3pm.face.stage import FaceStage

POSE = ("yaw", "pitch", "roll")
EXPRESSION = ("mouth_open", "smile", "eyes_open", "brows")
Look = Callable[[NDArray[np.uint8]], Mapping[str, NDArray[np.float64]]]
Diversity = dict[str, tuple[float, float, float]]
"""By measure its mean over people, and the ends of its 95 % interval; NaN where no face was found."""
FLOOR, CEILING = "one real picture, altered", "real pictures of different people"
"""What the measures say of one picture, and of pictures that have nothing in common: between these lies a method."""
BLUR, BRIGHTNESS = 1.0, 0.2
"""The strongest alteration of the floor: blur in 64ths of the width (standard deviation), change of the brightness."""


def diversity(
    images: Sequence[NDArray[np.uint8]],
    features: NDArray[np.float32],
    vectors: Mapping[str, NDArray[np.float32]],
    look: Look | None,
    lpips: Lpips | None = None,
    targets: Mapping[str, NDArray[np.float32]] | None = None,
) -> Diversity:
    """Measures of the images of some people.

    Args:
        images: For each person uint8 [S, H, W, 3]: seeds.
        features: [P, S, D].
        vectors: By FR model, [P, S, D]; NaN where no face was found.
        look: Measures pose and expression of uint8 [N, H, W, 3]; see `landmark_look`.
        lpips: Measures perceptual distances.
        targets: By FR model the people's own vectors, [P, D]; `None` leaves the distance to them out.

    Returns:
        See `Diversity`. All but the distance to the target are means over the pairs of a person's images: cosine
        distances of features and ID vectors, Euclidean distances of pose (degrees) and expression (shares), and of the
        same fields by dlib in units of its own.
    """
    found = {"feature distance": vectors_apart(features)}
    found |= {f"ID distance ({name})": vectors_apart(each) for name, each in vectors.items()}
    found |= {f"to the target ({name})": _to_target(vectors[name], own) for name, own in (targets or {}).items()}
    if lpips is not None:
        found[lpips.name] = np.array([_mean(lpips.pairs(person)) for person in images])
    if look is not None:
        people, seeds = len(images), len(images[0])
        seen = _looked(look, images)
        # dlib's roll is in degrees, its other fields are not: in one distance it would hide them.
        for judge, pose in (("", POSE), ("dlib ", POSE[:2])):
            for group, fields in (("pose", pose), ("expression", EXPRESSION)):
                names = [judge + field for field in fields if judge + field in seen]
                if names:
                    values = np.stack([seen[name].reshape(people, seeds) for name in names])
                    found[f"{judge}{group} distance"] = _apart(values)
    return {name: (_mean(values), *interval(values)) for name, values in found.items()}


def altered(image: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """One picture [H, W, 3], from darker and sharp to brighter and blurred: uint8 [count, H, W, 3], for `FLOOR`."""
    picture = Image.fromarray(image)
    made = []
    for share in np.linspace(0.0, 1.0, count):
        blurred = picture.filter(ImageFilter.GaussianBlur(float(share) * BLUR * image.shape[1] / 64))
        made.append(np.asarray(ImageEnhance.Brightness(blurred).enhance(1.0 + BRIGHTNESS * (2.0 * float(share) - 1.0))))
    return np.stack(made)


def landmark_look(stage: FaceStage, threads: int | None, notes: list[str]) -> Look | None:
    """Pose and expression by the landmark network, with dlib's landmarks as a second judge where it is installed.

    Args:
        stage: Finds the faces.
        threads: CPU threads.
        notes: Gets a sentence where the network is not installed; nothing is measured then.
    """
    try:
        mesh = FaceMesh(threads=threads)
    except (MissingExtraError, EngineMissingError) as error:
        notes.append(f"pose and expression were not measured: {error}")
        return None
    return LandmarkJudge(stage, mesh).look


def _to_target(vectors: NDArray[np.float32], targets: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mean cosine distance of each person's images [P, S, D] to the person's own vector [P, D]: [P]."""
    made, own = (each / np.linalg.norm(each, axis=-1, keepdims=True) for each in (vectors, targets[:, None]))
    distances = 1.0 - (made * own).sum(axis=2)
    return np.array([_mean(person) for person in distances.astype(np.float64)])


def _looked(look: Look, images: Sequence[NDArray[np.uint8]]) -> dict[str, NDArray[np.float64]]:
    """What `look` says of all images, [P * S] for each measure; pictures of one size are looked at together."""
    seeds = len(images[0])
    seen: dict[str, NDArray[np.float64]] = {}
    for shape in sorted({person.shape for person in images}):
        people = [number for number, person in enumerate(images) if person.shape == shape]
        for name, values in look(np.concatenate([images[number] for number in people])).items():
            of_all = seen.setdefault(name, np.full((len(images), seeds), np.nan))
            of_all[people] = values.reshape(len(people), seeds)
    return {name: values.reshape(-1) for name, values in seen.items()}


def _apart(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean Euclidean distance between the images of each person, of fields [fields, P, S]: [P]; NaN without a pair."""
    first, second = np.triu_indices(values.shape[2], k=1)
    distances = np.linalg.norm(values[:, :, first] - values[:, :, second], axis=0)
    return np.array([_mean(person) for person in distances])


def _mean(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
