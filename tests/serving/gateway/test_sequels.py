"""An image whose stages are asked for one after the other may be finished while the server drains."""

from __future__ import annotations

import pytest

from id3pm.serving.gateway.request import Asked
from id3pm.serving.gateway.sequels import PATIENCE_S, Sequels


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_second_stage_of_an_image_belongs_to_the_first_once_and_not_for_long() -> None:
    clock = Clock()
    sequels = Sequels(clock)
    sequels.answered("o", Asked("denoiser_64", "a"))
    sequels.answered("o", Asked("denoiser_64", "b"))
    assert sequels.awaited
    second = Asked("super_resolution", "a")
    assert not sequels.include("another", second)
    assert sequels.include("o", second) and not sequels.include("o", second)
    clock.now += PATIENCE_S
    assert not sequels.awaited and not sequels.include("o", Asked("super_resolution", "b"))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (Asked("denoiser_64", "a", "ping"), Asked("super_resolution", "a")),
        (Asked("id3pm", "a"), Asked("super_resolution", "a")),
        (Asked("denoiser_64", "a"), Asked("super_resolution", "b")),
        (Asked("denoiser_64", "a"), Asked("super_resolution", "a", "watch")),
        (Asked("denoiser_64", "a"), Asked("denoiser_64", "a")),
    ],
)
def test_other_requests_do_not_belong_together(first: Asked, second: Asked) -> None:
    sequels = Sequels(Clock())
    sequels.answered("o", first)
    assert not sequels.include("o", second)
