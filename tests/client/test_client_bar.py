"""The progress bar."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from id3pm_client._bar import Bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_the_line_is_drawn_in_place() -> None:
    screen = Terminal()
    bar = Bar(4, "images", screen)
    for done in range(5):
        bar.update(done)
    bar.close()
    lines = screen.getvalue().rstrip("\n").split("\r")[1:]
    assert lines[0].startswith(f"[{'-' * 30}] 0/4 images")
    assert lines[2].startswith(f"[{'#' * 15}{'-' * 15}] 2/4 images, ")
    assert lines[2].rstrip().endswith("s left")
    assert lines[4].startswith(f"[{'#' * 30}] 4/4 images")
    assert len(lines[4]) >= len(lines[3].rstrip()), "nothing of the longer line before stays behind"
    assert screen.getvalue().endswith("\n")


def test_in_a_log_it_is_a_line_now_and_then() -> None:
    log = io.StringIO()
    bar = Bar(100, "images", log)
    for done in range(101):
        bar.update(done)
    bar.update(100)  # what comes after the end is no news
    bar.close()
    assert log.getvalue() == f"[{'#' * 30}] 100/100 images\n"
    bar.update(50, unit="steps")
    bar.update(100)
    assert log.getvalue().endswith(" 100/100 steps\n")


def test_what_was_done_before_it_was_seen_has_no_rate() -> None:
    screen = Terminal()
    bar = Bar(1, "images", screen)
    bar.update(15, 100, "steps of super_resolution")
    assert screen.getvalue().endswith("15/100 steps of super_resolution")
    bar.update(30)
    assert "/s, " in screen.getvalue().rpartition("30/100")[2]


def test_generate_shows_it_where_asked_to(client: Any, capsys: pytest.CaptureFixture[str]) -> None:
    client.generate(np.ones(4), [1, 2], progress=True)
    assert "2/2 images" in capsys.readouterr().err
    client.generate(np.ones(4), [1, 2])
    client.generate_from_photo(np.zeros((4, 4, 3), np.uint8), 1, progress=True)
    assert capsys.readouterr().err.count("images") == 1
