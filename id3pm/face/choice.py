"""Which of the faces in a photo is taken, and why none can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import FaceError, FaceTooSmallError, InvalidInputError, NoFaceError, SeveralFacesError
from id3pm.face.detection_attempts import Attempt

FacePolicy = Literal["largest", "only"]
MIN_FACE_SIZE = 24
"""Shortest allowed side of a face's box, in pixels of the photo; below it, five landmarks lie within noise."""

LARGE, LONG = 2000, 3
"""Longer side in pixels, and times the shorter one, from which on a photo without a face should be cropped."""


def choose(
    faces: NDArray[np.float32], policy: FacePolicy, size: tuple[int, int], attempts: Sequence[Attempt]
) -> NDArray[np.float32] | FaceError:
    """The face [15] that the policy takes, or the error why none can be taken."""
    height, width = size
    if not len(faces):
        tried = ", ".join(map(str, attempts))
        return NoFaceError(
            f"no face was found in the {width}x{height} photo; tried with its longer side at {tried}, and turned by "
            f"quarters: send a photo in which the face looks towards the camera and is well lit{_crop_advice(size)}"
        )
    if policy == "only" and len(faces) > 1:
        return SeveralFacesError(
            f"{len(faces)} faces were found and face='only' allows one: crop the photo, or send face='largest'"
        )
    face = largest(faces)
    if min(face[2:4]) < MIN_FACE_SIZE:
        return FaceTooSmallError(
            f"the face is {face[2]:.0f}x{face[3]:.0f} px: at least {MIN_FACE_SIZE} px are needed; send a closer photo"
        )
    return face


def _crop_advice(size: tuple[int, int]) -> str:
    """Advice for large and long pictures, in which faces may be too small for the detector."""
    longer, shorter = max(size), min(size)
    small = longer > LARGE or longer > LONG * shorter
    return ", and crop a large or wide one (a panorama, a group) to the person's head and shoulders" if small else ""


def largest(faces: NDArray[np.float32]) -> NDArray[np.float32]:
    """The detection [15] with the largest box among [N, 15]; N is at least 1."""
    face: NDArray[np.float32] = faces[np.argmax(faces[:, 2] * faces[:, 3])]
    return face


def check_policy(policy: str) -> None:
    """Refuses a policy that does not exist.

    Raises:
        InvalidInputError: The message names the policies.
    """
    if policy not in get_args(FacePolicy):
        raise InvalidInputError(f"face={policy!r}: choose one of {', '.join(get_args(FacePolicy))}")
