"""An image whose stages are asked for one after the other may be finished while the server drains."""

from __future__ import annotations

import pytest
from tritonclient.grpc import service_pb2

from id3pm.serving.gateway.in_flight import GRACE_S, DrainGrace
from id3pm.serving.gateway.request import Request


def request(model: str, id: str, control: str | None = None) -> Request:
    return Request(service_pb2.ModelInferRequest(model_name=model, id=id), control)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_second_stage_of_an_image_belongs_to_the_first_once_and_not_for_long() -> None:
    clock = Clock()
    drain_grace = DrainGrace(clock)
    drain_grace.answered("o", request("denoiser_64", "a"))
    drain_grace.answered("o", request("denoiser_64", "b"))
    assert drain_grace.awaited
    second = request("super_resolution", "a")
    assert not drain_grace.include("another", second)
    assert drain_grace.include("o", second) and not drain_grace.include("o", second)
    clock.now += GRACE_S
    assert not drain_grace.awaited and not drain_grace.include("o", request("super_resolution", "b"))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (request("denoiser_64", "a", "ping"), request("super_resolution", "a")),
        (request("id3pm", "a"), request("super_resolution", "a")),
        (request("denoiser_64", "a"), request("super_resolution", "b")),
        (request("denoiser_64", "a"), request("super_resolution", "a", "watch")),
        (request("denoiser_64", "a"), request("denoiser_64", "a")),
    ],
)
def test_other_requests_do_not_belong_together(first: Request, second: Request) -> None:
    drain_grace = DrainGrace(Clock())
    drain_grace.answered("o", first)
    assert not drain_grace.include("o", second)
