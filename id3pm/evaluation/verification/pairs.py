"""Sets of picture pairs, as verification protocols define them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import InvalidInputError

FOLDS = 10


@dataclasses.dataclass(frozen=True)
class Picture:
    """One encoded picture of a set.

    Attributes:
        name: For messages.
        read: Gives the file's content.
    """

    name: str
    read: Callable[[], bytes]


@dataclasses.dataclass(frozen=True, eq=False)
class PairSet:
    """Pairs of pictures in the protocol's order, in which `fold_slices` cuts the folds.

    Attributes:
        name: For reports: `LFW`, `CFP-FP`.
        pictures: Each picture once.
        pairs: int64 [P, 2], numbers of the two pictures of each pair.
        same: bool [P], whether both show one person.
        aligned: The pictures are crops that the FR models' own alignment has made: no detector is needed.
    """

    name: str
    pictures: Sequence[Picture]
    pairs: NDArray[np.int64]
    same: NDArray[np.bool_]
    aligned: bool = False

    def __post_init__(self) -> None:
        if len(self.same) < FOLDS:
            raise InvalidInputError(f"{self.name} has {len(self.same)} pairs: {FOLDS} folds need at least {FOLDS}")
        if self.same.all() or not self.same.any():
            kind = "the same person" if self.same.all() else "different people"
            raise InvalidInputError(f"{self.name} has only pairs of {kind}: a threshold needs both kinds")

    def first_of_each_fold(self, count: int) -> PairSet:
        """A smaller set for a quick run: the first `count` pairs of either kind in every fold, in their order."""
        kept = np.zeros(len(self.same), bool)
        for fold in fold_slices(len(self.same)):
            for kind in (True, False):
                members = np.flatnonzero(self.same[fold] == kind)[:count]
                kept[fold.start + members] = True
        used, pairs = np.unique(self.pairs[kept], return_inverse=True)
        return PairSet(
            name=self.name,
            pictures=[self.pictures[number] for number in used],
            pairs=pairs.reshape(-1, 2),
            same=self.same[kept],
            aligned=self.aligned,
        )


def fold_slices(pairs: int) -> list[slice]:
    """The test pairs of every fold: `sklearn.model_selection.KFold(10)` without shuffling.

    The first `pairs % 10` folds have one pair more.
    """
    sizes = [pairs // FOLDS + (fold < pairs % FOLDS) for fold in range(FOLDS)]
    ends = np.cumsum(sizes).tolist()
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def pair_set(
    name: str, pairs: Sequence[tuple[Picture, Picture]], same: Sequence[bool], *, aligned: bool = False
) -> PairSet:
    """A set in which pictures of the same name are one picture."""
    numbers: dict[str, int] = {}
    pictures: list[Picture] = []
    rows = np.empty((len(pairs), 2), np.int64)
    for row, pair in enumerate(pairs):
        for side, picture in enumerate(pair):
            if picture.name not in numbers:
                numbers[picture.name] = len(pictures)
                pictures.append(picture)
            rows[row, side] = numbers[picture.name]
    return PairSet(name, pictures, rows, np.array(same, bool), aligned)


def file_picture(file: Path, name: str) -> Picture:
    """A picture that is read from its file when it is needed."""
    return Picture(name, file.read_bytes)


def bytes_picture(data: bytes) -> Picture:
    """A picture in memory, named after its content so that equal ones count as one."""
    return Picture(hashlib.sha256(data).hexdigest()[:16], lambda: data)


def lines_of(file: Path, most: int = 1_000_000) -> list[str]:
    """The lines of a protocol's text file without the blank ones.

    Raises:
        InvalidInputError: It is missing, is no text, or has more than `most` lines.
    """
    try:
        if file.stat().st_size > 100 * most:
            raise InvalidInputError(f"{file.name} has {file.stat().st_size} bytes: a list of pairs has {most} lines")
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InvalidInputError(f"{file} does not exist") from None
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{file.name} is no text in UTF-8: {error}") from error
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > most:
        raise InvalidInputError(f"{file.name} has {len(lines)} lines: at most {most} are read")
    return lines
