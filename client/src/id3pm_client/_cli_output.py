"""Output of the commands: results on stdout, messages and progress (`_bar`) on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

from id3pm_client._bar import Bar
from id3pm_client._images import Embedding
from id3pm_client._sync import Client

T = TypeVar("T")


def face_of(client: Client, photo: str, face: str) -> Embedding:
    """The face in a photograph; tells if there are others."""
    found = waiting(client, f"analysing {photo}", lambda: client.embed(photo, face=face))
    tell_of_others(photo, found)
    return found


def tell_of_others(photo: str, found: Embedding, bar: Bar | None = None) -> None:
    """Says which face of several is used."""
    if bar is not None and (found.turned or found.faces > 1):
        bar.clear()
    if found.turned:
        tell(f"{photo} was turned by {found.turned} degrees counter-clockwise: its face is upright there")
    if found.faces == 1:
        return
    x, y, width, height = (round(float(number)) for number in found.box)
    tell(
        f"{photo} shows {found.faces} faces: the largest is used, {width} x {height} px at ({x}, {y}); "
        "--face only refuses such photographs"
    )


def waiting(client: Client, what: str, call: Callable[[], T]) -> T:
    """Makes a call without progress of its own; after a second it prints the reason for waiting."""
    bar = Bar(0, what)
    try:
        with client._with_progress([], bar):
            return call()
    finally:
        bar.clear()


def show(result: object, bar: Bar | None = None) -> None:
    """A result or a path, on stdout."""
    if bar is not None:
        bar.clear()
    sys.stdout.write(f"{result}\n")
    sys.stdout.flush()


def tell(line: str) -> None:
    """A message on stderr."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
