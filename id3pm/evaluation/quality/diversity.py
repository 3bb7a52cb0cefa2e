"""Diversity of the images of one person over seeds: pose, expression, features, ID vectors.

As the diversity table of Kansy et al. 2023: distances within the pairs of each person's images, mean over people.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import EngineMissingError, MissingExtraError
from id3pm.evaluation.figures.diversity import interval, vectors_apart
from id3pm.evaluation.figures.landmark_judge import LandmarkJudge
from id3pm.evaluation.quality.lpips import Lpips
from id3pm.face.landmarks import FaceMesh
from id3pm.face.stage import FaceStage

POSE = ("yaw", "pitch", "roll")
EXPRESSION = ("mouth_open", "smile", "eyes_open", "brows")
Look = Callable[[NDArray[np.uint8]], Mapping[str, NDArray[np.float64]]]


def diversity(
    images: NDArray[np.uint8],
    features: NDArray[np.float32],
    vectors: Mapping[str, NDArray[np.float32]],
    look: Look | None,
    lpips: Lpips | None = None,
) -> dict[str, tuple[float, float, float]]:
    """Measures of the images of some people.

    Args:
        images: uint8 [P, S, H, W, 3]: people, seeds.
        features: [P, S, D].
        vectors: By FR model, [P, S, D]; NaN where no face was found.
        look: Measures pose and expression of uint8 [N, H, W, 3]; see `landmark_look`.
        lpips: Measures perceptual distances.

    Returns:
        By measure its mean over people, with a 95 % interval. All are means over the pairs of a person's images:
        cosine distances of features and ID vectors, Euclidean distances of pose (degrees) and expression (shares), and
        of the same fields by dlib in units of its own.
    """
    found = {"feature distance": vectors_apart(features)}
    found |= {f"ID distance ({name})": vectors_apart(each) for name, each in vectors.items()}
    if lpips is not None:
        found[lpips.name] = np.array([_mean(lpips.pairs(person)) for person in images])
    if look is not None:
        people, seeds = images.shape[:2]
        seen = look(images.reshape(people * seeds, *images.shape[2:]))
        # dlib's roll is in degrees, its other fields are not: in one distance it would hide them.
        for witness, pose in (("", POSE), ("dlib ", POSE[:2])):
            for group, fields in (("pose", pose), ("expression", EXPRESSION)):
                names = [witness + field for field in fields if witness + field in seen]
                if names:
                    values = np.stack([seen[name].reshape(people, seeds) for name in names])
                    found[f"{witness}{group} distance"] = _apart(values)
    return {name: (_mean(values), *interval(values)) for name, values in found.items()}


def landmark_look(stage: FaceStage, threads: int | None, notes: list[str]) -> Look | None:
    """Pose and expression by the landmark network, with dlib's landmarks as a second witness where it is installed.

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


def _apart(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean Euclidean distance between the images of each person, of fields [fields, P, S]: [P]; NaN without a pair."""
    first, second = np.triu_indices(values.shape[2], k=1)
    distances = np.linalg.norm(values[:, :, first] - values[:, :, second], axis=0)
    return np.array([_mean(person) for person in distances])


def _mean(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
