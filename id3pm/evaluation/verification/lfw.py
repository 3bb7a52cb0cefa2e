"""Labeled Faces in the Wild, view 2: `pairs.txt` and a folder of pictures.

Huang et al. 2007. The first line of pairs.txt gives the number of folds and of pairs per fold and kind (`10 300`). Each
fold is a block of `name i j`, two pictures of one person, then as many lines of `name i other j`. Pictures are
`name/name_0001.jpg`, or `.png`.
"""

from __future__ import annotations

from pathlib import Path

from id3pm.errors import InvalidInputError
from id3pm.evaluation.verification.pairs import FOLDS, PairSet, Picture, file_picture, lines_of, pair_set

SUFFIXES = (".jpg", ".png")  # in the order in which facenet's lfw.py tries them


def read_lfw(folder: Path, pairs_file: Path | None = None) -> PairSet:
    """The pairs of LFW's protocol.

    Args:
        folder: Has a folder of pictures for each person.
        pairs_file: pairs.txt; `None` for the one in `folder`.

    Raises:
        InvalidInputError: A line breaks the format, or a picture is missing, which is an error in facenet's lfw.py too.
    """
    file = pairs_file or folder / "pairs.txt"
    header, *lines = lines_of(file) or [""]
    folds, per_kind = _header(file.name, header)
    if len(lines) != 2 * folds * per_kind:
        raise InvalidInputError(
            f"{file.name} has {len(lines)} pairs after the header {header!r}: it announces {2 * folds * per_kind}"
        )
    pairs, same = [], []
    for number, line in enumerate(lines):
        matched = number // per_kind % 2 == 0
        fields, where = line.split(), f"line {number + 2} of {file.name}"
        if len(fields) != (3 if matched else 4):
            rule = "name i j, two pictures of one person" if matched else "name i other j, pictures of two people"
            raise InvalidInputError(f"{where} is {line!r}: this block has {rule}")
        name, first, other, second = (fields[0], fields[1], fields[0], fields[2]) if matched else fields
        pairs.append((_picture(folder, name, first, where), _picture(folder, other, second, where)))
        same.append(matched)
    return pair_set("LFW", pairs, same)


def _header(name: str, line: str) -> tuple[int, int]:
    fields = line.split()
    if len(fields) != 2 or not all(field.isascii() and field.isdecimal() and len(field) < 7 for field in fields):
        raise InvalidInputError(
            f"{name} begins with {line!r}: pairs.txt of view 2 begins with the numbers of folds and of pairs, as 10 300"
        )
    folds, per_kind = int(fields[0]), int(fields[1])
    if folds != FOLDS or not per_kind:
        raise InvalidInputError(f"{name} has {folds} folds of {per_kind} pairs: the protocol has {FOLDS} with pairs")
    return folds, per_kind


def _picture(folder: Path, name: str, number: str, where: str) -> Picture:
    if "/" in name or "\\" in name or name in (".", "..") or "\0" in name:
        raise InvalidInputError(f"{where} names {name!r}: a person's name is the name of one folder")
    if not (number.isascii() and number.isdecimal() and len(number) < 7):
        raise InvalidInputError(f"{where} has the picture number {number!r}: give 1, 2, ...")
    stem = f"{name}/{name}_{int(number):04d}"
    for suffix in SUFFIXES:
        file = folder / (stem + suffix)
        if file.is_file():
            return file_picture(file, stem + suffix)
    raise InvalidInputError(f"{where} needs {stem} with the ending {' or '.join(SUFFIXES)}: there is none")
