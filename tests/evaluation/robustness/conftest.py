"""A real face stage, a real portrait, and a stand-in for the diffusion model."""

from __future__ import annotations

from pathlib import Path

import pytest

from id3pm.evaluation.robustness.portrait import Portrait, portrait_of
from id3pm.face.stage import FaceStage
from id3pm.formats.photo_decoding import decode_photo
from tests.evaluation.robustness.made_up_model import PEOPLE, MadeUpPipeline


@pytest.fixture(scope="session")
def stage(face_folder: Path) -> FaceStage:
    return FaceStage.load(face_folder, threads=1)


@pytest.fixture(scope="session")
def person(stage: FaceStage) -> Portrait:
    """A face that a GAN made."""
    return portrait_of(decode_photo((PEOPLE / "03.png").read_bytes()), stage)


@pytest.fixture
def pipeline(stage: FaceStage, person: Portrait) -> MadeUpPipeline:
    return MadeUpPipeline(stage, person.image)
