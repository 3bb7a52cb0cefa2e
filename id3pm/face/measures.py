"""Measures from landmarks: head pose in degrees, and expression as shares of what generated faces show.

The pose is the rotation that fits a rigid reference head to the landmarks. The expression is read off after that
rotation has been undone, in distances between the outer corners of the eyes, so that it depends little on pose and
size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_PAIRS = {
    (33, 263): (0.500, -0.012, 0.058),  # outer corners of the eyes
    (133, 362): (0.194, 0.012, 0.000),  # inner corners
    (98, 327): (0.195, 0.503, -0.132),  # wings of the nose
    (127, 356): (0.763, 0.006, 0.592),  # temples
    (234, 454): (0.751, 0.162, 0.650),  # before the ears
    (54, 284): (0.658, -0.404, 0.197),  # sides of the forehead
    (103, 332): (0.553, -0.498, 0.059),
    (70, 300): (0.627, -0.182, 0.060),  # outer ends of the brows
}
"""Landmarks of the person's right and left, and where the left one lies on the reference head: x, y, z."""
_MIDDLE = {
    168: (-0.046, -0.181),  # down the bridge of the nose
    6: (0.052, -0.226),
    197: (0.138, -0.278),
    195: (0.216, -0.333),
    5: (0.299, -0.390),
    4: (0.398, -0.414),
    1: (0.469, -0.390),  # its tip
    2: (0.532, -0.218),  # below it
    10: (-0.591, -0.151),  # down the forehead
    151: (-0.411, -0.183),
    9: (-0.233, -0.204),
}
"""Landmarks of the middle, and where they lie on the reference head: y, z."""
RIGID = [index for pair in _PAIRS for index in pair] + list(_MIDDLE)
"""Landmarks that expressions hardly move."""
REFERENCE = np.array(
    [point for x, y, z in _PAIRS.values() for point in ((-x, y, z), (x, y, z))]
    + [(0.0, y, z) for y, z in _MIDDLE.values()]
)
"""The reference head [27, 3]: the mean of 4000 generated faces and their mirror images, brought onto each other by
rotation, scale and translation. x to the picture's right, y down, z away from the viewer; the eyes' outer corners are 1
apart. Its pitch is that of the mean face."""

UPPER_LIP, LOWER_LIP = 13, 14  # their inner edges
MOUTH_CORNERS = [61, 291]
EYES = (((33, 133), (159, 145)), ((263, 362), (386, 374)))  # corners; lids
BROWS = [63, 105, 66, 293, 334, 296]
EYE_CORNERS = [33, 133, 263, 362]

RANGES = {"mouth_open": (0.0, 0.30), "smile": (0.30, 0.85), "eyes_open": (0.20, 0.43), "brows": (0.19, 0.34)}
"""What 0 and 1 mean, in distances between the eyes' outer corners: about the 1st and the 99th of 100 generated faces.

Smile is the width of the mouth plus three times the height of its corners above the upper lip: each alone also depends
on how far the mouth is open, their sum does not. Eyes: height by width. Brows: their height above the corners of the
eyes.
"""


def measure(points: NDArray[np.floating[Any]]) -> dict[str, NDArray[np.float64]]:
    """Head pose and expression of faces.

    Args:
        points: [N, 468, 3], see `id3pm.face.landmarks.FaceMesh.find`.

    Returns:
        Name -> float64 [N], by the fields of attribute set `landmarks` and with their signs (`id3pm.attributes`): roll,
        yaw and pitch in degrees; mouth_open, smile, eyes_open and brows as shares, which may lie outside 0 .. 1.
    """
    rotations, scales, centers = fit_head(points[:, RIGID])
    head = np.einsum("nki,nij->nkj", points - centers[:, None], rotations) / scales[:, None, None]
    corners = head[:, MOUTH_CORNERS]
    lift = head[:, UPPER_LIP, 1] - corners[:, :, 1].mean(axis=1)
    lids = [_distance(head, *lid) / _distance(head, *corner) for corner, lid in EYES]
    found = {
        "mouth_open": _distance(head, UPPER_LIP, LOWER_LIP),
        "smile": _distance(head, *MOUTH_CORNERS) + 3.0 * lift,
        "eyes_open": (lids[0] + lids[1]) / 2,
        "brows": head[:, EYE_CORNERS, 1].mean(axis=1) - head[:, BROWS, 1].mean(axis=1),
    }
    shares = {name: (value - RANGES[name][0]) / np.ptp(RANGES[name]) for name, value in found.items()}
    return {**angles(rotations), **shares}


def fit_head(
    points: NDArray[np.floating[Any]],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Rotations, scales and translations that move the reference head onto landmarks with least squared error.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991, eq. 40-43.

    Args:
        points: [N, 27, 3], the landmarks `RIGID`.

    Returns:
        Rotations [N, 3, 3], scales [N] (distance between the eyes' outer corners in the unit of the points) and
        translations [N, 3]: point = scale * rotation @ reference + translation.
    """
    reference = REFERENCE - REFERENCE.mean(axis=0)
    means = points.mean(axis=1)
    u, singular, vt = np.linalg.svd(np.einsum("nki,kj->nij", points - means[:, None], reference))
    signs = np.ones((len(points), 3))
    signs[:, 2] = np.sign(np.linalg.det(u) * np.linalg.det(vt))  # a rotation, never a reflection
    rotations = np.einsum("nij,nj,njk->nik", u, signs, vt)
    scales = (singular * signs).sum(axis=1) / (reference**2).sum()
    return rotations, scales, means - scales[:, None] * (rotations @ REFERENCE.mean(axis=0))


def angles(rotations: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Roll, yaw and pitch in degrees of rotations [N, 3, 3] = R_z(roll) R_y(-yaw) R_x(-pitch)."""
    yaw = np.arcsin(np.clip(rotations[:, 2, 0], -1.0, 1.0))
    pitch = -np.arctan2(rotations[:, 2, 1], rotations[:, 2, 2])
    roll = np.arctan2(rotations[:, 1, 0], rotations[:, 0, 0])
    return {"roll": np.degrees(roll), "yaw": np.degrees(yaw), "pitch": np.degrees(pitch)}


def _distance(head: NDArray[np.float64], a: int, b: int) -> NDArray[np.float64]:
    distance: NDArray[np.float64] = np.linalg.norm(head[:, a] - head[:, b], axis=1)
    return distance
