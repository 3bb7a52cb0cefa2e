"""LFW's pairs.txt, CFP's split files and insightface's .bin: what is read, and what is refused with which words."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from id3pm.errors import InvalidInputError
from id3pm.evaluation.verification import insightface_bin
from id3pm.evaluation.verification.cfp import read_cfp
from id3pm.evaluation.verification.insightface_bin import read_insightface_bin
from id3pm.evaluation.verification.lfw import read_lfw
from id3pm.evaluation.verification.pairs import PairSet

PER_KIND = 2


def write_lfw(folder: Path) -> list[str]:
    """Ten folds of two pairs of either kind; returns the lines of pairs.txt."""
    lines = [f"10\t{PER_KIND}"]
    for fold in range(10):
        a, b = f"Ann_{fold}", f"Bob_{fold}"
        lines += [f"{a}\t1\t2", f"{b}\t1\t2", f"{a}\t1\t{b}\t1", f"{a}\t2\t{b}\t2"]
        for name in (a, b):
            (folder / name).mkdir(parents=True)
            (folder / name / f"{name}_0001.jpg").write_bytes(f"{name} 1".encode())
            (folder / name / f"{name}_0002.png").write_bytes(f"{name} 2".encode())
    (folder / "pairs.txt").write_text("\n".join(lines) + "\n")
    return lines


def contents(pairs: PairSet) -> list[tuple[str, str]]:
    first, second = ([pairs.pictures[one].read().decode() for one in pairs.pairs[:, side]] for side in (0, 1))
    return list(zip(first, second, strict=True))


def test_lfw_pairs_are_in_the_order_of_the_file(tmp_path: Path) -> None:
    write_lfw(tmp_path)
    found = read_lfw(tmp_path)
    assert contents(found)[:4] == [
        ("Ann_0 1", "Ann_0 2"), ("Bob_0 1", "Bob_0 2"), ("Ann_0 1", "Bob_0 1"), ("Ann_0 2", "Bob_0 2"),
    ]  # fmt: skip
    assert found.same.tolist() == [True, True, False, False] * 10
    assert (len(found.pictures), found.name, found.aligned) == (40, "LFW", False)
    smaller = found.first_of_each_fold(1)
    assert contents(smaller)[2:4] == [("Ann_1 1", "Ann_1 2"), ("Ann_1 1", "Bob_1 1")]
    assert smaller.same.tolist() == [True, False] * 10 and len(smaller.pictures) == 30


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (0, "500", r"pairs.txt begins with '500': pairs.txt of view 2 begins with the numbers of folds and of pairs"),
        (0, "9 2", "pairs.txt has 9 folds of 2 pairs: the protocol has 10"),
        (0, "10 3", "pairs.txt has 40 pairs after the header '10 3': it announces 60"),
        (
            1,
            "Ann_0 1 Bob_0 1",
            "line 2 of pairs.txt is 'Ann_0 1 Bob_0 1': this block has name i j, two pictures of one",
        ),
        (3, "Ann_0 1 2", "line 4 of pairs.txt is 'Ann_0 1 2': this block has name i other j"),
        (1, "Ann_0 1 x", "line 2 of pairs.txt has the picture number 'x'"),
        (1, "Ann_0 1 3", "line 2 of pairs.txt needs Ann_0/Ann_0_0003 with the ending .jpg or .png: there is none"),
        (1, "../Ann_0 1 2", "line 2 of pairs.txt names '../Ann_0': a person's name is the name of one folder"),
    ],
)
def test_a_line_that_breaks_lfws_format_is_named(tmp_path: Path, line: int, text: str, message: str) -> None:
    lines = write_lfw(tmp_path)
    lines[line] = text
    (tmp_path / "pairs.txt").write_text("\n".join(lines))
    with pytest.raises(InvalidInputError, match=message):
        read_lfw(tmp_path)


def test_a_missing_or_binary_pairs_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="pairs.txt does not exist"):
        read_lfw(tmp_path)
    (tmp_path / "pairs.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInputError, match="pairs.txt is no text in UTF-8"):
        read_lfw(tmp_path)
    (tmp_path / "pairs.txt").write_text("")
    with pytest.raises(InvalidInputError, match="pairs.txt begins with ''"):
        read_lfw(tmp_path)


def write_cfp(folder: Path) -> None:
    """Two people with two frontal and two profile pictures each; every fold has the same two pairs of either kind."""
    protocol = folder / "Protocol"
    lists: dict[str, list[str]] = {"F": [], "P": []}
    for person in ("001", "002"):
        for kind, name in (("F", "frontal"), ("P", "profile")):
            for number in ("01", "02"):
                file = folder / "Data/Images" / person / name / f"{number}.jpg"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(f"{person} {kind}{number}".encode())
                path = f"../Data/Images/{person}/{name}/{number}.jpg"
                lists[kind].append(f"{len(lists[kind]) + 1} {path}")
    for split in ("FF", "FP"):
        for fold in range(1, 11):
            (protocol / f"Split/{split}/{fold:02d}").mkdir(parents=True)
            (protocol / f"Split/{split}/{fold:02d}/same.txt").write_text("1,2\n3,4\n")
            (protocol / f"Split/{split}/{fold:02d}/diff.txt").write_text("1,3\n2,4\n")
    for kind, lines in lists.items():
        (protocol / f"Pair_list_{kind}.txt").write_text("\r\n".join(lines))


def test_cfp_pairs_are_frontal_with_frontal_or_with_profile(tmp_path: Path) -> None:
    write_cfp(tmp_path)
    assert contents(read_cfp(tmp_path, "FP"))[:3] == [
        ("001 F01", "001 P02"),
        ("002 F01", "002 P02"),
        ("001 F01", "002 P01"),
    ]
    found = read_cfp(tmp_path, "FF")
    assert contents(found)[0] == ("001 F01", "001 F02")
    assert found.same.tolist() == [True, True, False, False] * 10
    assert (len(found.pictures), found.name) == (4, "CFP-FF")


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("Split/FP/03/diff.txt", "1,9\n2,4", "line 1 of 03/diff.txt is '1,9': there are pictures 1 .. 4"),
        ("Split/FP/03/diff.txt", "1 2", "line 1 of 03/diff.txt is '1 2': each line gives two numbers"),
        ("Split/FP/03/diff.txt", "1,2", "fold 03 of FP has 3 pairs: those before it have 4 each"),
        ("Pair_list_P.txt", "1 ../Data/Images/001/profile/99.jpg", "profile/99.jpg': there is no such file"),
        ("Pair_list_P.txt", "1 ../../outside.jpg", "names '../../outside.jpg': pictures lie in the data set's folder"),
        ("Pair_list_P.txt", "x", "Pair_list_P.txt has the line 'x': each gives a number and a path"),
    ],
)  # fmt: skip
def test_a_line_that_breaks_cfps_format_is_named(tmp_path: Path, file: str, text: str, message: str) -> None:
    root = tmp_path / "cfp"
    write_cfp(root)
    (tmp_path / "outside.jpg").write_bytes(b"secret")
    (root / "Protocol" / file).write_text(text)
    with pytest.raises(InvalidInputError, match=message):
        read_cfp(root, "FP")


PICTURES = [bytes([number]) * 5 for number in range(20)] * 2
ARRAYS = [np.frombuffer(one, np.uint8) for one in PICTURES]
SAME = [True, False] * 10


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "pictures",
    [PICTURES, ARRAYS, [one[:, None] for one in ARRAYS]],
    ids=["bytes", "arrays", "columns"],
)  # fmt: skip
@pytest.mark.parametrize("same", [SAME, np.array(SAME), list(np.array(SAME))], ids=["list", "array", "numpy scalars"])
def test_bin_files_of_every_pickle_protocol_are_read(tmp_path: Path, protocol: int, pictures: Any, same: Any) -> None:
    file = tmp_path / "agedb_30.bin"
    file.write_bytes(pickle.dumps((pictures, same), protocol))
    found = read_insightface_bin(file)
    assert found.same.tolist() == SAME
    assert [found.pictures[one].read() for one in found.pairs.reshape(-1)] == PICTURES
    assert (found.name, found.aligned, len(found.pictures)) == ("AgeDB-30", True, 20)


def test_python_2_strings_are_bytes(tmp_path: Path) -> None:
    """As `pickle.dumps(([...], [...]), 2)` of Python 2 writes them: opcodes U and T."""
    strings = b"".join(b"U" + bytes([len(one)]) + one for one in PICTURES[:38])
    long = b"".join(b"T" + len(one).to_bytes(4, "little") + one for one in PICTURES[38:])
    file = tmp_path / "lfw.bin"
    file.write_bytes(b"\x80\x02](" + strings + long + b"e](" + b"\x88\x89" * 10 + b"e\x86.")
    found = read_insightface_bin(file)
    assert [found.pictures[one].read() for one in found.pairs.reshape(-1)] == PICTURES
    assert found.name == "LFW"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ((PICTURES[:-1], SAME), "39 pictures and 20 booleans: two make a pair"),
        ((PICTURES, [True] * 20), "has only pairs of the same person"),
        ((PICTURES[:4], [True, False]), "has 2 pairs: 10 folds need at least 10"),
        ((PICTURES, [2] * 20), "boolean 0 is 2: need true or false"),
        ((PICTURES, [[]] * 20), "boolean 0 is list: need true or false"),
        (([1] * 40, SAME), "picture 0 is int: need bytes or a uint8 array"),
        ((PICTURES, SAME, 1), "holds tuple: need two lists"),
        ("text", "holds str: need two lists"),
        ((b"x", SAME), "holds bytes and list: need a list of pictures"),
        (([np.zeros(4)] * 40, SAME), "an array of f8: only bytes"),
        ({"a": 1}, "the opcode EMPTY_DICT: only bytes"),
        ((PICTURES, {True}), "the opcode (EMPTY_SET|GLOBAL)"),
        ((PICTURES, [1.5] * 20), "the opcode BINFLOAT"),
    ],
)  # fmt: skip
def test_other_content_of_a_bin_file_is_named(tmp_path: Path, content: Any, message: str) -> None:
    file = tmp_path / "x.bin"
    file.write_bytes(pickle.dumps(content, 4))
    with pytest.raises(InvalidInputError, match=f"^x(.bin)?:? .*{message}"):
        read_insightface_bin(file)


def test_a_file_that_is_too_large_or_missing_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match="does not exist"):
        read_insightface_bin(tmp_path / "no.bin")
    monkeypatch.setattr(insightface_bin, "MAX_BYTES", 10)
    (tmp_path / "x.bin").write_bytes(bytes(11))
    with pytest.raises(InvalidInputError, match="x.bin has 11 bytes: at most 10 are read"):
        read_insightface_bin(tmp_path / "x.bin")
