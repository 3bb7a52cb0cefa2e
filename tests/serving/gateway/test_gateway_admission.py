"""Refused bodies are freed at once, not by the garbage collector."""

from __future__ import annotations

import asyncio
import functools
import gc
import weakref
from collections.abc import Iterator

import pytest

from id3pm.serving.gateway.admission import Admission
from id3pm.serving.gateway.request import read_json
from id3pm.serving.protocol.limits import MAX_SMALL_BODY
from id3pm.serving.protocol.status import RefusedError


class Body(bytearray):
    """Which can be watched."""


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize(
    ("start", "filler", "end"),
    [
        (b'{"a": 1, "a": 2, "preset": "', b"x", b'"}'),
        (b'{"preset": "', b"x", b'"'),
        (b'{"preset": "', b"\xff", b'"}'),
        (b'{"steps": [], "preset": "', b"x", b'"}'),
    ],
    ids=["repeated key", "no JSON", "no UTF-8", "no number"],
)
def test_a_refused_body_is_let_go_of(start: bytes, filler: bytes, end: bytes) -> None:
    async def refused() -> weakref.ref[Body]:
        admission = Admission(2**30, 2**26)
        body = Body(start + filler * MAX_SMALL_BODY + end)
        watched = weakref.ref(body)
        with pytest.raises(RefusedError):
            await admission.parsed(
                body, functools.partial(read_json, "id3pm", "", body, None, generate=True), len(body)
            )
        del body
        assert admission.held == 0
        return watched

    assert asyncio.run(refused())() is None
