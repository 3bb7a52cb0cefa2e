"""A service that is stopped finishes what was begun, also where an image takes two requests."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from services import service_on

from id3pm_client import Client, GeneratedImage

pytestmark = pytest.mark.server


def test_an_image_that_is_followed_is_finished_while_the_service_stops(repository: Path, embedding: np.ndarray) -> None:
    service = service_on(repository, drain_timeout_s=20)
    stopped: list[bool] = []
    stopping = threading.Thread(target=lambda: stopped.append(service.stop()))
    try:
        service.start()
        with Client(service.grpc_url) as client:
            expected = client.generate(embedding, 3, steps=200, sr_steps=3)
            made: list[Any] = []
            for event in client.stream(embedding, 3, steps=200, sr_steps=3):
                made.append(event)
                if len(made) == 1:
                    stopping.start()
            assert isinstance(made[-1], GeneratedImage)
            np.testing.assert_array_equal(made[-1].image, expected.image)
            stopping.join(timeout=30)
            assert stopped == [True]
    finally:
        service.kill()
