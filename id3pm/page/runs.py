"""Runs: one or several pictures made at once, with progress at each step, stopped by one button."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from PIL import Image

from id3pm.page.people import Vector, similarity
from id3pm.page.user_messages import Notice, notice_for
from id3pm_client import AsyncClient, GeneratedImage, Image64, InvalidRequestError, Progress

_END_S = 5.0  # for stopped runs to cancel their requests
_FRAME_S = 0.07  # least time between two updates: a browser shows no more
_SHARE = {"denoiser_64": (0.0, 0.6), "super_resolution": (0.6, 1.0)}  # of the progress bar


@dataclasses.dataclass(eq=False)
class Tile:
    """One picture of a run, and its progress.

    Attributes:
        label: The person or blend that it shows.
        caption: What distinguishes it from the other pictures.
        vector: Requested ID vector, float32 `[D]`.
        seed: Its seed.
        stage: The stage that works on it; empty before the first step.
        step: Steps of that stage so far.
        steps: Steps of that stage in all.
        small: The 64 px image, or its preview.
        large: The same of the 256 px image.
        result: The finished image.
        likeness: Cosine between the ID vector of the result and `vector`; `None` where no face is found in it.
        notice: Why it failed.
        ended: Finished, failed or stopped.
    """

    label: str
    caption: str
    vector: Vector
    seed: int
    stage: str = ""
    step: int = 0
    steps: int = 0
    small: Image.Image | None = None
    large: Image.Image | None = None
    result: GeneratedImage | None = None
    likeness: float | None = None
    notice: Notice | None = None
    ended: bool = False

    @property
    def progress(self) -> float:
        """How much is done, 0 to 1."""
        if self.result is not None:
            return 1.0
        if not self.stage or not self.steps:
            return 0.0
        low, high = _SHARE[self.stage]
        return low + (high - low) * self.step / self.steps


class Run:
    """Pictures that are made at once.

    Attributes:
        tiles: The pictures, in the order of the page.
        stopped: Whether Stop was pressed.
    """

    def __init__(
        self, client: AsyncClient, tiles: Sequence[Tile], options: Mapping[str, Any], preview_every: int = 1
    ) -> None:
        """Prepares a run; nothing is sent before `watch`.

        Args:
            client: Makes the pictures.
            tiles: The pictures to make.
            options: Sampling options of all of them.
            preview_every: Steps between two previews.
        """
        self.tiles = list(tiles)
        self.stopped = False
        self._client = client
        self._options = dict(options)
        self._preview_every = preview_every
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._begin = time.monotonic()
        self._seconds: float | None = None

    @property
    def seconds(self) -> float:
        """Time since the beginning; once all has ended, until then."""
        return time.monotonic() - self._begin if self._seconds is None else self._seconds

    @property
    def ended(self) -> bool:
        """Whether all pictures have ended."""
        return all(tile.ended for tile in self.tiles)

    @property
    def notices(self) -> list[Notice]:
        """The errors, each once."""
        return list({tile.notice.title: tile.notice for tile in self.tiles if tile.notice is not None}.values())

    async def watch(self) -> AsyncGenerator[None, None]:
        """Makes the pictures; yields whenever there is something new to see, a last time when all has ended.

        Leaving stops the work on the service too.
        """
        self._begin = time.monotonic()
        self._tasks = [asyncio.create_task(self._make(tile)) for tile in self.tiles]
        try:
            while not self.ended:
                await self._changed.wait()
                self._changed.clear()
                if not self.ended:
                    yield
                    await asyncio.sleep(_FRAME_S)
            self._seconds = self.seconds
            yield
        finally:
            await self._end()

    async def stop(self) -> None:
        """Ends what is not finished, on the service too, and returns when it is; `watch` ends soon after."""
        if self.ended:
            return
        self.stopped = True
        await self._end()

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_END_S)

    async def _make(self, tile: Tile) -> None:
        try:
            events = self._client.stream(tile.vector, tile.seed, preview_every=self._preview_every, **self._options)
            async with contextlib.aclosing(events):
                async for event in events:
                    _note(tile, event)
                    self._changed.set()
            assert tile.result is not None
            tile.likeness = await self._likeness(tile.result, tile.vector)
        except asyncio.CancelledError:
            pass  # by `stop`, or because the page was closed: the stream has cancelled the request
        except Exception as error:  # one picture's failure is shown in its place, the others go on
            tile.notice = notice_for(error)
        finally:
            tile.ended = True
            self._changed.set()

    async def _likeness(self, result: GeneratedImage, vector: Vector) -> float | None:
        try:
            return similarity((await self._client.embed(result.image)).vector, vector)
        except InvalidRequestError:
            return None  # no face is found in it, which the page says


def _note(tile: Tile, event: Progress | Image64 | GeneratedImage) -> None:
    match event:
        case Progress():
            tile.stage, tile.step, tile.steps = event.stage, event.step, event.steps
            if event.preview is not None and event.stage == "denoiser_64":
                tile.small = event.preview
            elif event.preview is not None:
                tile.large = event.preview
        case Image64():
            tile.small = event.image
        case GeneratedImage():
            tile.result, tile.large = event, event.image
