"""Pictures with faces that detectors are compared on."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from skimage import data


def scenes() -> dict[str, npt.NDArray[np.uint8]]:
    """A photograph with one face, one with two, a small soft face, and one cut by the frame: RGB [H, W, 3] each."""
    portrait = np.ascontiguousarray(data.astronaut())
    two = np.zeros((512, 768, 3), dtype=np.uint8)
    two[:, :512] = portrait
    two[:256, 512:] = cv2.resize(portrait[:, ::-1], (256, 256), interpolation=cv2.INTER_AREA)
    small = cv2.resize(portrait[40:200, 143:303], (64, 64), interpolation=cv2.INTER_AREA)
    return {"portrait": portrait, "two": two, "small": small, "cut": np.ascontiguousarray(portrait[90:300, 200:420])}
