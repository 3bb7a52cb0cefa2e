"""Alignment: the similarity transform that moves five landmarks onto a template, and its crop; crops of boxes."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from id3pm.errors import MissingExtraError
from id3pm.installation import how_to_install

ARCFACE_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Landmarks of an aligned 112x112 face (ArcFace, Deng et al. 2019; also SFace): eyes, nose tip, mouth corners."""
CROP_SIZE = 112


def similarity_transform(source: NDArray[np.floating[Any]], target: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """The rotation, uniform scale and translation that move `source` onto `target` with least squared error.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991, eq. 40-43.

    Args:
        source: [K, 2] points, K >= 2, not all the same.
        target: [K, 2] points.

    Returns:
        float64 [2, 3]: `matrix @ [x, y, 1]` is the moved point.
    """
    source, target = source.astype(np.float64), target.astype(np.float64)
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    covariance = (target - target_mean).T @ (source - source_mean) / len(source)
    u, singular, vt = np.linalg.svd(covariance)
    # A face is never mirrored by alignment: the reflection that fits best is turned into the best rotation (eq. 43).
    sign = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = (u * sign) @ vt
    scale = (singular * sign).sum() / ((source - source_mean) ** 2).sum(axis=1).mean()
    translation = target_mean - scale * rotation @ source_mean
    return np.concatenate([scale * rotation, translation[:, None]], axis=1)


def align_face(
    image: NDArray[np.uint8],
    landmarks: NDArray[np.floating[Any]],
    antialias: bool = True,
    template: NDArray[np.float64] = ARCFACE_TEMPLATE,
    size: tuple[int, int] = (CROP_SIZE, CROP_SIZE),
    fit: Literal["crop", "photo"] = "crop",
) -> NDArray[np.uint8]:
    """The crop in which the five landmarks lie on the template; outside the picture it is black.

    Args:
        image: uint8 [H, W, 3].
        landmarks: [5, 2], pixels of `image`.
        antialias: First shrink a face that is more than twice the crop's size by averaging whole blocks of pixels.
            Bilinear sampling alone (what OpenCV's `FaceRecognizerSF.alignCrop` does) skips pixels there, and the ID
            vector would change with the resolution of the photo. Smaller faces are sampled exactly as OpenCV does.
        template: [5, 2], pixels of the crop.
        size: Height and width of the crop.
        fit: Whether the landmarks' squared error is least in pixels of the crop or of the photo.

    Returns:
        uint8 [*size, 3], channel order of `image`.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingExtraError(f"face alignment needs OpenCV: {how_to_install('face')}") from error
    matrix = _fitted(landmarks, template, fit)
    # Only the face's surroundings are touched: cheaper, and OpenCV refuses to warp sides above 32767 pixels.
    left, top, image = _surroundings(image, matrix, size)
    landmarks = landmarks - (left, top)
    factor = int(1.0 / np.hypot(matrix[0, 0], matrix[1, 0])) if antialias else 1
    if factor >= 2:
        shrunk = (-(-image.shape[1] // factor), -(-image.shape[0] // factor))
        bottom, right = shrunk[1] * factor - image.shape[0], shrunk[0] * factor - image.shape[1]
        image = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        image = cv2.resize(image, shrunk, interpolation=cv2.INTER_AREA)
        landmarks = (landmarks + 0.5) / factor - 0.5  # coordinates count the centres of pixels
    crop: NDArray[np.uint8] = cv2.warpAffine(
        image, _fitted(landmarks, template, fit), size[::-1], flags=cv2.INTER_LINEAR
    )
    return crop


def _fitted(
    landmarks: NDArray[np.floating[Any]], template: NDArray[np.float64], fit: Literal["crop", "photo"]
) -> NDArray[np.float64]:
    """The transform from photo to crop, float64 [2, 3]."""
    if fit == "crop":
        return similarity_transform(landmarks, template)
    back = np.vstack([similarity_transform(template, landmarks), [0.0, 0.0, 1.0]])
    return np.asarray(np.linalg.inv(back)[:2])


def box_crop(
    image: NDArray[np.uint8], box: NDArray[np.floating[Any]], size: tuple[int, int], margin: float
) -> NDArray[np.uint8]:
    """The box with a margin, cut off at the picture's edges and stretched to the crop.

    As facenet-pytorch's `extract_face` does with PIL pictures: corners truncated to whole pixels, Pillow's bilinear
    resizing (which averages where it shrinks).

    Args:
        image: uint8 [H, W, 3].
        box: [4], x, y, width, height in pixels of `image`.
        size: Height and width of the crop.
        margin: Pixels of the crop outside of the box, half of them on either side.

    Returns:
        uint8 [*size, 3], channel order of `image`.
    """
    x, y, width, height = (float(value) for value in box)
    across, down = (margin * side / (sides - margin) / 2 for side, sides in ((width, size[1]), (height, size[0])))
    right, bottom = min(x + width + across, image.shape[1]), min(y + height + down, image.shape[0])
    left, top = int(max(x - across, 0)), int(max(y - down, 0))
    # A box that hardly touches the picture keeps one pixel of it.
    left, top = min(left, image.shape[1] - 1), min(top, image.shape[0] - 1)
    inside = image[top : max(int(bottom), top + 1), left : max(int(right), left + 1)]
    resized = Image.fromarray(np.ascontiguousarray(inside)).resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(resized)


def _surroundings(
    image: NDArray[np.uint8], matrix: NDArray[np.float64], size: tuple[int, int], margin: int = 4
) -> tuple[int, int, NDArray[np.uint8]]:
    """Left, top and pixels of the part of the picture that the crop of this transform shows, and a margin."""
    down, across = size
    corners = np.array([[0, 0], [across, 0], [0, down], [across, down]])
    inside = (corners - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
    height, width = image.shape[:2]
    left, top = np.clip(np.floor(inside.min(axis=0)) - margin, 0, (width - 1, height - 1)).astype(int).tolist()
    right, bottom = np.ceil(inside.max(axis=0)).astype(int) + margin
    return left, top, image[top : max(bottom, top + 1), left : max(right, left + 1)]
