"""The pictures of one visit, and whether each can be made again."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from id3pm.page.people import Vector
from id3pm.page.runs import Run
from id3pm.page.user_messages import Notice, PageError, notice_for
from id3pm_client import AsyncClient, GeneratedImage, ReplayError

KEPT = 48
"""Number of pictures kept for a visit, in memory only; the oldest is dropped first."""


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
    """One picture of the history.

    Attributes:
        number: Which picture of the visit, from 1.
        label: The person or blend that it shows.
        vector: ID vector it was made from, float32 `[D]`: what a replay needs beside the receipt.
        image: The picture with its receipt.
        likeness: Cosine to `vector`, or `None` where no face is found.
    """

    number: int
    label: str
    vector: Vector
    image: GeneratedImage
    likeness: float | None

    @property
    def file_stem(self) -> str:
        """Name of its downloads, without ending."""
        return f"id3pm-{self.number:02d}-seed-{self.image.seed}"

    @property
    def receipt_json(self) -> str:
        """The receipt as indented JSON."""
        return json.dumps(self.image.receipt, indent=2)

    @property
    def settings(self) -> Mapping[str, str]:
        """How it was made, from its receipt, in the order of the page."""
        base, sr = (self.image.receipt["stages"][stage]["options"] for stage in ("base", "sr"))
        return {
            "Seed": str(self.image.seed),
            "64 px": f"{base['steps']} steps, {base['sampler']}",
            "Guidance": f"{base['guidance_scale']:g}",
            "256 px": f"{sr['steps']} steps, {sr['sampler']}",
            "Time": f"{self.image.seconds:.1f} s",
            "Model": str(self.image.receipt["bundle"]),
        }


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Result of making a picture again.

    Attributes:
        notice: The answer in words.
        differences: Field of the receipt to (value then, value now); empty where nothing differs.
    """

    notice: Notice
    differences: Mapping[str, tuple[Any, Any]] = dataclasses.field(default_factory=dict)


class History:
    """The pictures of one visit, the newest first."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._made = 0

    def add(self, run: Run) -> list[Entry]:
        """Keeps the finished pictures of a run; returns their entries."""
        new = []
        for tile in run.tiles:
            if tile.result is not None:
                self._made += 1
                new.append(Entry(self._made, tile.label, tile.vector, tile.result, tile.likeness))
        self.entries = [*reversed(new), *self.entries][:KEPT]
        return new

    def entry(self, number: object) -> Entry:
        """The picture of this number.

        Raises:
            PageError: It is not kept any more.
        """
        for entry in self.entries:
            if str(entry.number) == str(number):
                return entry
        raise PageError(
            f"Picture {str(number)[:20]} is not here any more.", f"The last {KEPT} are kept. Please choose another one."
        )


async def make_again(client: AsyncClient, entry: Entry) -> Verdict:
    """Makes a picture again from its receipt, and compares receipts and pixels."""
    try:
        again = await client.replay(entry.image, entry.vector)
    except ReplayError as error:
        return Verdict(notice_for(error), error.differences)
    except Exception as error:
        return Verdict(notice_for(error))
    return Verdict(
        Notice(
            f"Made again in {again.seconds:.1f} s: identical.",
            "Every pixel is the same, and so is the receipt.",
            kind="good",
        )
    )
