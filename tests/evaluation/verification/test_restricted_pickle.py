"""Hostile pickles: nothing in them is imported, called or allocated."""

from __future__ import annotations

import os
import pickle
import random
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from id3pm.errors import InvalidInputError
from id3pm.evaluation.verification import restricted_pickle
from id3pm.evaluation.verification.restricted_pickle import loads


class Runs:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_function_that_a_pickle_names_is_called(tmp_path: Path, protocol: int) -> None:
    made = tmp_path / "made"
    hostile = [Runs(os.mkdir, str(made)), Runs(eval, f"__import__('os').mkdir({str(made)!r})"), Runs(np.fromfile, "x")]
    for one in hostile:
        with pytest.raises(InvalidInputError, match="the pickle (names|has the opcode)"):
            loads(pickle.dumps([one], protocol))
    assert not made.exists()
    pickle.loads(pickle.dumps(hostile[0]))  # what an ordinary reader does
    assert made.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"cposix\nsystem\n(S'true'\ntR.",
        b"(iposix\nsystem\n.",  # INST
        b"\x80\x02cos\nPathLike\n)\x81.",  # NEWOBJ
        b"\x80\x02]cos\nsystem\nb.",  # BUILD on a list
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n}b.",  # BUILD on a function
        b"\x80\x02cnumpy\ndtype\ncos\nsystem\n\x85R.",  # a name as an argument
        b"\x80\x02X\x01\x00\x00\x00a)R.",  # calls a text
        b"Pidentifier\n.",  # persistent id
        b"\x80\x02\x82\x01.",  # extension registry
        b"\x80\x05\x97.",  # out-of-band buffer
    ],
)
def test_opcodes_that_make_objects_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidInputError, match="pickle"):
        loads(data)


def encode_again_and_again(size: int, times: int) -> bytes:
    """A text that is memoised once and converted to bytes many times, through `_codecs.encode`."""
    text = b"X" + struct.pack("<I", size) + b"a" * size + b"q\x01"
    encoding = b"X\x06\x00\x00\x00latin1q\x02"
    call = b"c_codecs\nencode\nh\x01h\x02\x86R"
    return b"\x80\x02" + text + encoding + b"](" + call * times + b"e."


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x.",  # BINBYTES8 of 1 TB
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x.",  # BYTEARRAY8
        b"\x80\x02]r\xff\xff\xff\x7f.",  # LONG_BINPUT to 2^31
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nK\x00J\xff\xff\xff\x7f\x85C\x01b\x87R.",  # an array of 2^31
        encode_again_and_again(100_000, 2_000),
        b"\x80\x02" + b"]" * 500_000 + b".",
        b"\x80\x02](" + b"]" * 100_000,  # truncated
    ],
    ids=["bytes8", "bytearray8", "memo", "array", "encode", "lists", "truncated"],
)
def test_memory_stays_below_a_bound(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restricted_pickle, "MAX_OPERATIONS", 20_000)
    tracemalloc.start()
    try:
        loads(data)
    except InvalidInputError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 8 * len(data) + 20_000 * 200 + 2_000_000


def test_arrays_of_one_buffer_share_its_bytes() -> None:
    """Protocol 5: BYTEARRAY8 once, then arrays of it again and again."""
    array = np.frombuffer(bytearray(200_000), np.uint8)
    data = pickle.dumps([array, array.view(), array.view()], 5)
    assert len({id(one.data) for one in loads(data)}) <= 3
    once = b"\x80\x05\x96" + struct.pack("<Q", 200_000) + bytes(200_000) + b"\x94"
    dtype = b"cnumpy\ndtype\n\x8c\x02u1\x85R\x94"
    call = b"cnumpy.core.numeric\n_frombuffer\n(h\x00h\x01K\x01\x85\x8c\x01CtR"
    found = loads(once + b"0" * 0 + dtype + b"](" + call * 500 + b"e\x87.")[2]
    assert len(found) == 500 and len({id(one.data) for one in found}) == 1


def test_random_bytes_and_random_changes_end_in_an_answer_or_a_clear_error() -> None:
    random.seed(1)
    good = pickle.dumps(([b"ab", np.zeros(3, np.uint8)] * 3, [True, False]), 4)
    for _ in range(3_000):
        data = bytearray(good)
        for _ in range(random.randint(1, 4)):
            data[random.randrange(len(data))] = random.randrange(256)
        try:
            loads(bytes(data[: random.randint(1, len(data))]))
        except InvalidInputError as error:
            assert "pickle" in str(error) and len(str(error)) < 500
