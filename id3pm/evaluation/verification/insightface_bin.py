"""insightface's `.bin` files: LFW, CFP-FP, AgeDB-30 and others as aligned crops of 112 px.

A pickle of (pictures, same): encoded pictures as bytes or uint8 arrays, two for each pair, and one boolean per pair.
Ten folds are cut from the pairs in their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from id3pm.errors import InvalidInputError
from id3pm.evaluation.verification.pairs import PairSet, Picture, bytes_picture, pair_set
from id3pm.evaluation.verification.restricted_pickle import Array, loads

MAX_BYTES = 1 << 30
"""Largest file; those that insightface publishes have 60 to 90 MB."""
NAMES = {
    "lfw": "LFW",
    "agedb_30": "AgeDB-30",
    "cfp_fp": "CFP-FP",
    "cfp_ff": "CFP-FF",
    "calfw": "CALFW",
    "cplfw": "CPLFW",
}


def read_insightface_bin(file: Path) -> PairSet:
    """The pairs of a `.bin` file, named after it.

    Raises:
        InvalidInputError: It is no such file, is larger than `MAX_BYTES`, or holds anything but pictures and booleans.
    """
    try:
        size = file.stat().st_size
        if size > MAX_BYTES:
            raise InvalidInputError(f"{file.name} has {size} bytes: at most {MAX_BYTES} are read")
        content = loads(file.read_bytes())
    except FileNotFoundError:
        raise InvalidInputError(f"{file} does not exist") from None
    except InvalidInputError as error:
        raise InvalidInputError(f"{file.name}: {error}") from None
    pictures, same = _two_lists(file.name, content)
    for number, value in enumerate(same):
        if not isinstance(value, int) or value not in (0, 1):
            shown = value if isinstance(value, int) else type(value).__name__
            raise InvalidInputError(f"{file.name}: boolean {number} is {shown}: need true or false")
    known: dict[int, Picture] = {}  # a picture that the pickle repeats is hashed once
    found = []
    for number, picture in enumerate(pictures):
        data = _encoded(file.name, number, picture)
        found.append(known.setdefault(id(data), known.get(id(data)) or bytes_picture(data)))
    pairs = list(zip(found[::2], found[1::2], strict=True))
    return pair_set(NAMES.get(file.stem.lower(), file.stem), pairs, [bool(value) for value in same], aligned=True)


def _two_lists(name: str, content: Any) -> tuple[Sequence[Any], Sequence[Any]]:
    if not isinstance(content, (tuple, list)) or len(content) != 2:
        raise InvalidInputError(f"{name} holds {type(content).__name__}: need two lists, pictures and booleans")
    pictures, same = content
    if isinstance(same, Array) and same.data is not None:
        same = same.data  # its bytes are the booleans
    if not isinstance(pictures, (list, tuple)) or not isinstance(same, (list, tuple, bytes)):
        kinds = f"{type(pictures).__name__} and {type(same).__name__}"
        raise InvalidInputError(f"{name} holds {kinds}: need a list of pictures and a list of booleans")
    if len(pictures) != 2 * len(same):
        raise InvalidInputError(f"{name} has {len(pictures)} pictures and {len(same)} booleans: two make a pair")
    return pictures, same


def _encoded(name: str, number: int, picture: Any) -> bytes:
    data = picture.data if isinstance(picture, Array) else picture
    if not isinstance(data, bytes):
        raise InvalidInputError(f"{name}: picture {number} is {type(data).__name__}: need bytes or a uint8 array")
    return data
