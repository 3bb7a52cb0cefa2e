"""An image whose stages are asked for one after the other may be finished while the server drains."""

from __future__ import annotations

import pytest

from id3pm.serving.gateway.drain_grace import PATIENCE_S, DrainGrace
from id3pm.serving.gateway.request import RequestInfo


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_second_stage_of_an_image_belongs_to_the_first_once_and_not_for_long() -> None:
    clock = Clock()
    drain_grace = DrainGrace(clock)
    drain_grace.answered("o", RequestInfo("denoiser_64", "a"))
    drain_grace.answered("o", RequestInfo("denoiser_64", "b"))
    assert drain_grace.awaited
    second = RequestInfo("super_resolution", "a")
    assert not drain_grace.include("another", second)
    assert drain_grace.include("o", second) and not drain_grace.include("o", second)
    clock.now += PATIENCE_S
    assert not drain_grace.awaited and not drain_grace.include("o", RequestInfo("super_resolution", "b"))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (RequestInfo("denoiser_64", "a", "ping"), RequestInfo("super_resolution", "a")),
        (RequestInfo("id3pm", "a"), RequestInfo("super_resolution", "a")),
        (RequestInfo("denoiser_64", "a"), RequestInfo("super_resolution", "b")),
        (RequestInfo("denoiser_64", "a"), RequestInfo("super_resolution", "a", "watch")),
        (RequestInfo("denoiser_64", "a"), RequestInfo("denoiser_64", "a")),
    ],
)
def test_other_requests_do_not_belong_together(first: RequestInfo, second: RequestInfo) -> None:
    drain_grace = DrainGrace(Clock())
    drain_grace.answered("o", first)
    assert not drain_grace.include("o", second)
