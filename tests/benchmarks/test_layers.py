"""The costs of the layers of serving: what is compared, and how it is counted. No server here."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

import ours
from contest import Turn, digest
from load import layers
from machine import processor_s
from workers import Rounds

IMAGES = 2


def turn(seconds: float, processor_s: dict[str, float], client_s: float = 0.0, images: str = "same") -> Turn:
    return Turn(seconds, processor_s, client_s, images)


def test_the_clock_of_a_process_has_the_time_of_all_its_threads() -> None:
    before = processor_s(os.getpid())
    assert before == pytest.approx(time.process_time(), abs=0.2)
    end = time.process_time() + 0.1
    while time.process_time() < end:
        np.linalg.eigvals(np.eye(20))
    assert processor_s(os.getpid()) - before >= 0.1
    child = subprocess.Popen(["true"])
    child.wait(timeout=60)
    with pytest.raises(OSError):
        processor_s(child.pid)


def test_plain_batches_and_the_step_scheduler_make_the_same_images(tiny_repository: Path) -> None:
    given = {"repository": str(tiny_repository), "images": 5, "steps": 3, "sr_steps": 2}  # of batches of 4
    one, other = ours.PlainBatches(**given).sample(), ours.Cascade(**given).sample()
    assert one.digest == other.digest != ours.PlainBatches(**{**given, "steps": 2}).sample().digest
    assert min(*one.processor_s.values(), *other.processor_s.values(), one.seconds, other.seconds) > 0


def test_the_order_and_the_pixels_of_images_decide_their_digest() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert digest([image, image[::-1]]) == digest([image.copy(), image[::-1]]) != digest([image[::-1], image])


def test_what_a_layer_adds_is_taken_round_by_round() -> None:
    found = layers.results(
        Rounds(
            {
                layers.PLAIN: [turn(1.0, {"in process": 1.0}), turn(2.0, {"in process": 1.4})],
                layers.SCHEDULED: [turn(1.0, {"in process": 1.1}), turn(2.0, {"in process": 1.6})],
                layers.GATEWAY: [turn(2.0, {"id3pm": 0.4, "denoiser_64": 1.0}, 0.02)] * 2,
            },
            {},
        ),
        IMAGES,
    )
    measured = {"images": IMAGES, "ways": found}
    assert found[layers.PLAIN]["processor_ms"] == pytest.approx([500, 700])
    assert found[layers.GATEWAY]["parts_ms"] == pytest.approx({"denoiser_64": 500, "id3pm": 200})
    assert layers.share(measured, layers.GATEWAY) == pytest.approx(0.75)
    plain, scheduled, gateway = layers.markdown(measured)[2:]
    assert plain == "| plain batches | 1.5 (1.0 .. 2.0) | 600 (500 .. 700) |  |  |  |"
    assert scheduled == "| step scheduler | 1.5 (1.0 .. 2.0) | 675 (550 .. 800) | 75 (50 .. 100) |  |  |"
    assert "25 (-100 .. 150) | denoiser_64 500.0, `id3pm serve` 200.0 | 10.0 (10.0 .. 10.0)" in gateway


def test_ways_that_do_not_make_the_same_images_are_not_compared() -> None:
    turns = {layers.PLAIN: [turn(1.0, {"a": 1.0})], layers.SCHEDULED: [turn(1.0, {"a": 1.0}, images="others")]}
    with pytest.raises(RuntimeError, match="did not make the same images"):
        layers.results(Rounds(turns, {}), IMAGES)
    with pytest.raises(RuntimeError, match="not measured: .*no answer"):
        layers.results(Rounds(turns, {layers.GATEWAY: "no answer"}), IMAGES)
