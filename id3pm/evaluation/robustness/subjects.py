"""Subjects of an analysis: people and pictures from files and folders."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import FaceError, ImageError
from id3pm.evaluation.robustness.portrait import framed, portrait_of
from id3pm.evaluation.robustness.study import Subject, averaged
from id3pm.evaluation.robustness.variants import MEAN, ORIGINAL, PHOTOGRAPHS, STYLE, Picture, variants_of
from id3pm.face.stage import FaceStage
from id3pm.formats.photo_decoding import decode_photo


def _photo(file: Path) -> NDArray[np.uint8]:
    try:
        return decode_photo(file.read_bytes())
    except ImageError as error:
        raise ImageError(f"{file}: {error}") from error


def person(
    file: Path, stage: FaceStage, families: Sequence[str], more: Sequence[Path], drawings: Sequence[Path]
) -> Subject:
    """A person: the original, other photographs, all changes, drawings, and the mean of those that count.

    Args:
        file: The original.
        stage: Finds the face in it.
        families: Of changes, keys of `VARIANTS`.
        more: Other photographs of the person.
        drawings: Drawings, paintings or renderings of the person.

    Raises:
        FaceError: There is no face in the original.
        ImageError: A file is no picture.
    """
    try:
        portrait = portrait_of(_photo(file), stage)
    except FaceError as error:
        raise type(error)(f"{file}: {error}") from error
    pictures = [
        Picture(ORIGINAL, "original", portrait.image),
        *(Picture(PHOTOGRAPHS, other.stem, framed(_photo(other), stage)) for other in more),
        *variants_of(portrait, families),
        *(Picture(STYLE, other.stem, framed(_photo(other), stage)) for other in drawings),
    ]
    if averaged(pictures):
        pictures.append(Picture(MEAN, "mean ID vector", None))
    return Subject(file.stem, tuple(pictures), person=True)


def gallery(files: Sequence[Path], stage: FaceStage) -> list[Subject]:
    """Pictures that have nothing to do with each other, as one subject; none without pictures."""
    pictures = tuple(Picture(STYLE, file.stem, framed(_photo(file), stage)) for file in files)
    return [Subject("pictures", pictures, person=False)] if pictures else []


def named_apart(subjects: Sequence[Subject]) -> list[Subject]:
    """The same, with numbers behind names that were there before: names become file names."""
    taken: set[str] = set()
    renamed = []
    for subject in subjects:
        numbered = (f"{subject.name}-{number}" for number in itertools.count(2))
        name = next(name for name in itertools.chain([subject.name], numbered) if name not in taken)
        taken.add(name)
        renamed.append(dataclasses.replace(subject, name=name))
    return renamed
