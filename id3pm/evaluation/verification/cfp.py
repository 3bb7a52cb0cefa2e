"""Celebrities in Frontal-Profile in the Wild, protocols FF and FP, from the data set's own files.

Sengupta et al. 2016. `Protocol/Pair_list_F.txt` and `Pair_list_P.txt` number the frontal and the profile pictures from
1 (`1 ../Data/Images/001/frontal/01.jpg`, relative to `Protocol`). `Protocol/Split/FP/01` .. `10` hold `same.txt` and
`diff.txt` with one pair of numbers per line (`21,13`): in FP a frontal and a profile picture, in FF two frontal ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from id3pm.errors import InvalidInputError
from id3pm.evaluation.verification.pairs import FOLDS, PairSet, Picture, file_picture, lines_of, pair_set

CfpProtocol = Literal["FF", "FP"]


def read_cfp(folder: Path, protocol: CfpProtocol) -> PairSet:
    """The pairs of one protocol, fold by fold, each with its pairs of one person first.

    Args:
        folder: Has `Protocol` and `Data`.
        protocol: Frontal to frontal, or frontal to profile.

    Raises:
        InvalidInputError: A line breaks the format, a picture is missing, or folds differ in size.
    """
    frontal = _pictures(folder, "Pair_list_F.txt")
    second = frontal if protocol == "FF" else _pictures(folder, "Pair_list_P.txt")
    pairs: list[tuple[Picture, Picture]] = []
    same: list[bool] = []
    for fold in range(1, FOLDS + 1):
        before = len(pairs)
        for kind in ("same", "diff"):
            file = folder / "Protocol" / "Split" / protocol / f"{fold:02d}" / f"{kind}.txt"
            found = [
                _pair(f"line {number} of {fold:02d}/{file.name}", line, frontal, second)
                for number, line in enumerate(lines_of(file), 1)
            ]
            pairs += found
            same += [kind == "same"] * len(found)
        # The protocol's arithmetic cuts ten equal folds: it would mix folds of other sizes.
        if len(pairs) != fold * (len(pairs) - before):
            raise InvalidInputError(
                f"fold {fold:02d} of {protocol} has {len(pairs) - before} pairs: "
                f"those before it have {before // (fold - 1) if fold > 1 else 0} each"
            )
    return pair_set(f"CFP-{protocol}", pairs, same)


def _pictures(folder: Path, name: str) -> Mapping[str, Picture]:
    """The pictures by their number, which is written as in the list."""
    root = folder.resolve()
    found: dict[str, Picture] = {}
    for line in lines_of(folder / "Protocol" / name):
        number, _, path = line.partition(" ")
        if not (number.isascii() and number.isdecimal()) or not path.strip():
            raise InvalidInputError(f"{name} has the line {line!r}: each gives a number and a path")
        file = (root / "Protocol" / path.strip().replace("\\", "/")).resolve()
        if not file.is_relative_to(root):
            raise InvalidInputError(f"{name} names {path.strip()!r}: pictures lie in the data set's folder")
        if not file.is_file():
            raise InvalidInputError(f"{name} names {path.strip()!r}: there is no such file")
        found[number.lstrip("0")] = file_picture(file, file.relative_to(root).as_posix())
    return found


def _pair(
    where: str, line: str, first: Mapping[str, Picture], second: Mapping[str, Picture]
) -> tuple[Picture, Picture]:
    numbers = [field.strip().lstrip("0") for field in line.split(",")]
    if len(numbers) != 2:
        raise InvalidInputError(f"{where} is {line!r}: each line gives two numbers, such as 21,13")
    for number, pictures in zip(numbers, (first, second), strict=True):
        if number not in pictures:
            raise InvalidInputError(f"{where} is {line!r}: there are pictures 1 .. {len(pictures)}")
    return first[numbers[0]], second[numbers[1]]
