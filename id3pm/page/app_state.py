"""Shared state of the page: the service, the sample people, and the runs in progress."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image

from id3pm.page import html, served, space
from id3pm.page.people import Person, SimilarityScale, Vector, find_person, measure_scale, sample_files
from id3pm.page.runs import Run, Tile
from id3pm.page.settings import MAX_SEED
from id3pm.page.user_messages import Notice, PageError, notice_for
from id3pm.serving.protocol.limits import MAX_PHOTO_BYTES
from id3pm_client import AsyncClient, InvalidRequestError

logger = logging.getLogger("id3pm_page")
Handler: TypeAlias = Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object]
VARIATIONS = 4
_CLOSING_S = 10.0
STRIP = (0.0, 0.25, 0.5, 0.75, 1.0)


class AppState:
    """The page's connection to the service. Belongs to the event loop that first uses its client.

    Attributes:
        pictures: Name and data URI of each sample person.
        similarity_scale: Scale of similarities; `None` until the service has answered.
        space: Axes and directions of ID vectors.
    """

    def __init__(self, connect: Callable[[], AsyncClient], latent: Path) -> None:
        """Prepares it; nothing is sent.

        Args:
            connect: Makes the client.
            latent: The folder `latent` of the served bundle; need not exist.

        Raises:
            ValueError: A file in it is damaged.
        """
        self._connect = connect
        self._files = sample_files()
        self.pictures = [
            (f"Sample person {i}", html.data_uri(Image.open(file).convert("RGB")))
            for i, file in enumerate(self._files, start=1)
        ]
        self.similarity_scale: SimilarityScale | None = None
        self.space = space.Space.load(latent)
        self._about: served.Served | None = None
        self._client: AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._runs: dict[str, Run] = {}

    @property
    def client(self) -> AsyncClient:
        """The client, made on first use: it belongs to the event loop of that call."""
        if self._client is None:
            self._loop = asyncio.get_running_loop()
            self._loop.set_exception_handler(_exception_handler(self._loop.get_exception_handler()))
            self._client = self._connect()
        return self._client

    def close(self) -> None:
        """Stops all runs and closes the connection; called from outside the event loop, which still runs.

        Runs that do not end within ten seconds are left: the service ends them when the connection breaks.
        """
        if self._client is not None and self._loop is not None:
            closing = asyncio.run_coroutine_threadsafe(self._close(self._client), self._loop)
            if not concurrent.futures.wait([closing], timeout=_CLOSING_S).done:
                logger.warning("some runs did not stop within %g s", _CLOSING_S)

    async def _close(self, client: AsyncClient) -> None:
        await asyncio.gather(*(run.stop() for run in self._runs.values()))
        await client.close()

    async def load(self) -> tuple[str, Notice | None, served.Served]:
        """Answers an opened page: status in its head, a problem if there is one, and the served bundle."""
        try:
            about = await served.ask(self.client)
            if self.similarity_scale is None or about != self._about:
                self.similarity_scale = await self._measure()
            self._about = about
        except Exception as error:
            return html.status(False, "not ready"), notice_for(error), served.Served()
        pill, problem = await self._readiness()
        return pill, problem, about

    async def refresh(self) -> tuple[str, Notice | None, served.Served | None]:
        """A page is open for a while: the same, where `None` is what was served before."""
        if self._about is None:  # the service was away when the page was opened
            return await self.load()
        return *await self._readiness(), None

    async def _readiness(self) -> tuple[str, Notice | None]:
        try:
            if await self.client.is_ready():
                return html.status(True, "ready"), None
        except Exception as error:
            return html.status(False, "not ready"), notice_for(error)
        return html.status(False, "not ready"), Notice(
            "The service takes no requests at the moment.",
            "It may be starting, or be away. This page looks again every few seconds.",
        )

    async def sample(self, key: object) -> Person:
        """A sample person.

        Args:
            key: Number of the picture, from 0, as the browser sends it.

        Raises:
            PageError: There is none of this number.
            ClientError: The service does not answer.
        """
        names = {str(i): i for i in range(len(self._files))}
        if str(key) not in names:
            raise PageError(f"There is no sample person {str(key)[:20]!r}.", "Please choose one of those shown.")
        number = names[str(key)]
        return await find_person(self.client, self.pictures[number][0], self._files[number].read_bytes())

    async def uploaded_person(self, data: bytes) -> Person:
        """The person in an uploaded photograph.

        Raises:
            PageError: It is too large.
            ClientError: No usable face, or no answer.
            ImageError: Not a picture.
        """
        if len(data) > MAX_PHOTO_BYTES:
            raise PageError(
                f"This picture is too large: {len(data) / 2**20:.0f} MiB.",
                f"Please send one of at most {MAX_PHOTO_BYTES // 2**20} MiB; any photo program can make it smaller.",
            )
        return await find_person(self.client, "Your photograph", data, photograph=True)

    def target(
        self, first: Person | None, second: Person | None, t: float, walk: Sequence[float]
    ) -> tuple[Vector, str]:
        """The ID vector of a request, and its label.

        Args:
            first: The chosen person.
            second: Second person of a blend, or `None`.
            t: Share of the second person, 0 .. 1.
            walk: How far each slider of `space` was moved.

        Raises:
            PageError: No person is chosen, there is no way between the two, or the sliders are not for this service.
        """
        if first is None:
            raise PageError("No person is chosen yet.", "Please pick one of the sample people, or drop a photograph.")
        vector, label = first.vector, first.name
        if second is not None and t > 0:
            vector = space.blend(first.vector, second.vector, t)
            label = f"{100 - 100 * t:.0f} % {first.name}, {100 * t:.0f} % {second.name}"
        if any(walk):
            label += ", moved"
        model = None if self._about is None else self._about.id_vector_model
        return self.space.walk(vector, walk, model), label

    def strip(self, first: Person | None, second: Person | None, seed: int) -> list[Tile]:
        """From the first person to the second in five steps, all of one seed.

        Raises:
            PageError: One of them is missing.
        """
        if second is None:
            raise PageError("There is no second person yet.", "Please choose one under Blend with a second person.")
        targets = [(t, *self.target(first, second, t, ())) for t in STRIP]
        return [Tile(label, f"{100 * t:.0f} %", vector, seed) for t, vector, label in targets]

    def variations(self, vector: Vector, label: str, seed: int) -> list[Tile]:
        """The same face from several seeds in a row."""
        return [Tile(label, f"Seed {each}", vector, each) for each in _seeds(seed, VARIATIONS)]

    async def begin(
        self, visitor: str, tiles: list[Tile], options: Mapping[str, Any], attributes: Mapping[str, float], every: int
    ) -> Run:
        """A run for a visitor; an earlier one of theirs is stopped.

        Args:
            visitor: The visitor.
            tiles: The pictures to make.
            options: Sampling options.
            attributes: Attribute to value, for those that the visitor touched.
            every: Steps between two previews.
        """
        await self.stop(visitor)
        requested = dict(attributes) if self._about is None else self._about.requested(attributes)
        more = {"attributes": requested} if requested else {}
        self._runs[visitor] = Run(self.client, tiles, {**options, **more}, every)
        return self._runs[visitor]

    async def stop(self, visitor: str) -> None:
        """Stops a visitor's run, if there is one; returns when the service has stopped it."""
        run = self._runs.pop(visitor, None)
        if run is not None:
            await run.stop()

    async def _measure(self) -> SimilarityScale | None:
        try:
            return await asyncio.wait_for(measure_scale(self.client, self._files), timeout=60)
        except InvalidRequestError as error:  # a face-recognition model to which a sample shows no face
            logger.warning("no similarity scale: %s", error)
            return None


def _exception_handler(before: Handler | None) -> Handler:
    """An event loop's handler that keeps what cancelled calls leave in grpc's own tasks out of the terminal.

    When a browser leaves, its calls are cancelled; grpc may then raise `ExecuteBatchError` in a task that nothing
    awaits. Errors that matter reach the caller of the client.
    """

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None and type(error).__module__.partition(".")[0] == "grpc":
            logger.debug("left by a cancelled call: %r", error)
        elif before is not None:
            before(loop, context)
        else:
            loop.default_exception_handler(context)

    return handle


def _seeds(first: int, count: int) -> list[int]:
    return [(first + i) % (MAX_SEED + 1) for i in range(count)]
