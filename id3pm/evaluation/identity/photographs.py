"""Measures whether generated faces show the people of photographs; no picture is kept.

The generator was trained on generated people. Photographs of real people are outside of its training data, but are
what users try first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import InvalidInputError
from id3pm.evaluation.judges import Judge
from id3pm.evaluation.verification.similarities import Floats
from id3pm.face.choice import MIN_FACE_SIZE
from id3pm.face.framing import framed_face
from id3pm.face.stage import FaceStage

CROP_SIZE = 256  # crop of a photograph for the judges: the face with its head
Generate = Callable[[NDArray[np.float32], Sequence[int]], NDArray[np.uint8]]


@dataclasses.dataclass(frozen=True)
class People:
    """The faces of photographs.

    Attributes:
        names: For each, the file, and the number of the face if there are several.
        crops: uint8 [N, 256, 256, 3].
        vectors: ID vectors, float32 [N, D].
    """

    names: list[str]
    crops: NDArray[np.uint8]
    vectors: NDArray[np.float32]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Likeness:
    """Results of one judge for the images of one person.

    Attributes:
        name: See `People.names`.
        judge: Its name.
        similarity: Mean cosine similarity of photograph and images.
        strangers: Mean cosine similarity of the photograph and the images of the other people.
        rank: How many of the others' images are more like the photograph than the person's own are on average.
        no_face: Share of the images without a face.
    """

    name: str
    judge: str
    similarity: float
    strangers: float
    rank: int
    no_face: float


def people_of(photographs: Mapping[str, NDArray[np.uint8]], stage: FaceStage) -> People:
    """All faces in some photographs that are large enough to be embedded.

    Args:
        photographs: uint8 [H, W, 3] by name.
        stage: Finds and embeds them.

    Raises:
        InvalidInputError: Fewer than two.
    """
    names, crops, vectors = [], [], []
    for name, photo in photographs.items():
        faces = [face for face in stage.detect(photo[None])[0] if min(face[2:4]) >= MIN_FACE_SIZE]
        for number, face in enumerate(sorted(faces, key=lambda face: float(face[0]))):
            names.append(name if len(faces) == 1 else f"{name} {number + 1}")
            crops.append(framed_face(photo, face[4:14].reshape(5, 2), CROP_SIZE))
            vectors.append(stage.encode([photo], [face])[0])
    if len(names) < 2:
        raise InvalidInputError(f"{len(names)} faces in {len(photographs)} photographs: two are needed to compare")
    return People(names, np.stack(crops), np.stack(vectors))


def likenesses(people: People, generate: Generate, judges: Sequence[Judge], seeds: int) -> list[Likeness]:
    """Generates images of each person, and compares them with all photographs.

    Args:
        people: Faces of photographs.
        generate: (ID vectors [P, D], seeds [P]) -> uint8 [P, S, S, 3].
        judges: The FR models that compare.
        seeds: Images of each person.
    """
    count = len(people.names)
    owners = np.repeat(np.arange(count), seeds)
    images = generate(people.vectors[owners], list(range(count * seeds)))
    found = []
    for judge in judges:
        # The model that gave the ID vectors is held to what was asked for, as in `IdentityStudy`.
        targets = judge.embed(people.crops) if judge.independent else people.vectors
        cosines = _cosines(targets, judge.embed(images), centred=judge.centred)
        for person, name in enumerate(people.names):
            found.append(_likeness(name, judge.name, cosines[person], owners == person))
    return found


def _cosines(targets: NDArray[np.float32], made: NDArray[np.float32], *, centred: bool) -> Floats:
    """Cosines [N, P] of N targets and P images; NaN where either has no face."""
    center = np.nanmean(np.concatenate([targets, made]), axis=0) if centred else np.float32(0.0)
    unit = [vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (targets - center, made - center)]
    cosines: Floats = unit[0] @ unit[1].T
    return cosines


def _likeness(name: str, judge: str, cosines: Floats, own: NDArray[np.bool_]) -> Likeness:
    seen = np.isfinite(cosines)
    similarity = float(cosines[own & seen].mean()) if (own & seen).any() else float("nan")
    others = cosines[~own & seen]
    return Likeness(
        name=name,
        judge=judge,
        similarity=similarity,
        strangers=float(others.mean()) if len(others) else float("nan"),
        rank=int((others > similarity).sum()),
        no_face=float(np.mean(~seen[own])),
    )


def summary(found: Sequence[Likeness]) -> list[dict[str, Any]]:
    """Means over all people, per judge."""
    return [
        {
            "judge": judge,
            "similarity": round(float(np.nanmean([one.similarity for one in found if one.judge == judge])), 4),
            "strangers": round(float(np.nanmean([one.strangers for one in found if one.judge == judge])), 4),
            "no_face": round(float(np.mean([one.no_face for one in found if one.judge == judge])), 4),
        }
        for judge in dict.fromkeys(one.judge for one in found)
    ]
