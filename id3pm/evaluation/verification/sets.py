"""The sets of pairs of a command, and the pairs of a data set of this package."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import InvalidInputError
from id3pm.evaluation.identity.targets import altered
from id3pm.evaluation.verification.cfp import read_cfp
from id3pm.evaluation.verification.insightface_bin import read_insightface_bin
from id3pm.evaluation.verification.lfw import read_lfw
from id3pm.evaluation.verification.pairs import FOLDS, PairSet, Picture, pair_set
from id3pm.evaluation.verification.similarities import folds_of, partners_of
from id3pm.formats import datasets
from id3pm.formats.images import encode_png

SetKind = Literal["lfw", "bin", "cfp-ff", "cfp-fp", "data"]


def read_set(text: str, lfw_pairs: Path | None = None) -> PairSet:
    """The set that an option names.

    Args:
        text: `KIND=PATH`, such as `lfw=FOLDER`.
        lfw_pairs: pairs.txt, where it does not lie in LFW's folder.

    Raises:
        InvalidInputError: It is no such text, or the files break a rule of their format.
    """
    kind, _, path = text.partition("=")
    if kind not in get_args(SetKind) or not path:
        raise InvalidInputError(f"--set {text}: give KIND=PATH with a kind of {', '.join(get_args(SetKind))}")
    if kind == "lfw":
        return read_lfw(Path(path), lfw_pairs)
    if kind == "bin":
        return read_insightface_bin(Path(path))
    if kind == "data":
        return read_held_out(Path(path))
    return read_cfp(Path(path), "FF" if kind == "cfp-ff" else "FP")


def read_held_out(folder: Path) -> PairSet:
    """Pairs of the people that a data set holds out from training, one picture of each.

    The second picture of a pair of one person is the first one flipped, slightly blurred and brightened; of two people,
    it is that of the next person in the fold. So the real pictures' accuracy is a bound, no measure of the FR model.

    Raises:
        InvalidInputError: It is no data set, or holds out fewer than twenty people.
    """
    images = datasets.load(folder, "test")["images"]
    folds, partners = folds_of(len(images)), partners_of(len(images))
    # Encoded when they are read: a quick run uses a few.
    firsts = [Picture(f"person {row}", functools.partial(_encoded, images, row)) for row in range(len(images))]
    seconds = [Picture(f"person {row} altered", functools.partial(_altered, images, row)) for row in range(len(images))]
    pairs: list[tuple[Picture, Picture]] = []
    same: list[bool] = []
    for fold in range(FOLDS):
        members = np.flatnonzero(folds == fold)
        # Folds are cut from the order of the pairs, in equal parts: all have as many as the smallest.
        members = members[: len(images) // FOLDS]
        pairs += [(firsts[person], seconds[person]) for person in members]
        pairs += [(firsts[person], seconds[partners[person]]) for person in members]
        same += [True] * len(members) + [False] * len(members)
    return pair_set(folder.name, pairs, same)


def _encoded(images: NDArray[np.uint8], row: int) -> bytes:
    return encode_png(images[row])


def _altered(images: NDArray[np.uint8], row: int) -> bytes:
    return encode_png(altered(images[row : row + 1])[0])
