"""The asyncio client."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

import numpy.typing as npt

from id3pm_client import _base as base
from id3pm_client import _contract as contract
from id3pm_client._arguments import as_seeds
from id3pm_client._errors import ClientError, DeadlineExceededError, NotServedError, UnavailableError
from id3pm_client._flight import Call, Flight, Tensors
from id3pm_client._grpc import AsyncGrpcTransport
from id3pm_client._images import Embedding, GeneratedImage, Photo
from id3pm_client._transport import AsyncTransport

if TYPE_CHECKING:
    from typing import Unpack

logger = logging.getLogger("id3pm_client")


class AsyncClient(base.BaseClient[AsyncTransport]):
    """Client of an ID3PM server for asyncio: `Client`'s methods as coroutines. Belongs to one event loop.

    async with AsyncClient("127.0.0.1:8001") as client:
        face = await client.embed("portrait.jpg")
        images = await client.generate(face.vector, range(8), steps=25)
    """

    def _open(self, connection: base.Connection) -> AsyncTransport:
        return AsyncGrpcTransport(connection)

    def _prepare(self) -> None:
        self._slots = asyncio.Semaphore(self.max_in_flight)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection; the client cannot be used afterwards."""
        self._closed = True
        await self._transport.close()

    @overload
    async def generate(
        self,
        embedding: npt.ArrayLike | Embedding,
        seed: int,
        *,
        with_64: bool = ...,
        timeout_s: float | None = ...,
        on_image: base.OnImage | None = ...,
        **options: Unpack[contract.Options],
    ) -> GeneratedImage | Any: ...
    @overload
    async def generate(
        self,
        embedding: npt.ArrayLike | Embedding,
        seed: base.Seeds,
        *,
        with_64: bool = ...,
        timeout_s: float | None = ...,
        on_image: base.OnImage | None = ...,
        **options: Unpack[contract.Options],
    ) -> list[GeneratedImage]: ...
    async def generate(
        self,
        embedding: npt.ArrayLike | Embedding,
        seed: int | base.Seeds,
        *,
        with_64: bool = True,
        timeout_s: float | None = None,
        on_image: base.OnImage | None = None,
        **options: Unpack[contract.Options],
    ) -> GeneratedImage | list[GeneratedImage]:
        """Generates faces from ID vectors; see `Client.generate`. Cancelling the task stops the server's work too."""
        return await self._generate(self._generation(embedding, seed, with_64, timeout_s, options), on_image)

    @overload
    async def generate_from_photo(
        self,
        photo: Photo,
        seed: int,
        *,
        face: str = ...,
        with_64: bool = ...,
        timeout_s: float | None = ...,
        on_image: base.OnImage | None = ...,
        **options: Unpack[contract.Options],
    ) -> GeneratedImage: ...
    @overload
    async def generate_from_photo(
        self,
        photo: Photo,
        seed: base.Seeds,
        *,
        face: str = ...,
        with_64: bool = ...,
        timeout_s: float | None = ...,
        on_image: base.OnImage | None = ...,
        **options: Unpack[contract.Options],
    ) -> list[GeneratedImage]: ...
    async def generate_from_photo(
        self,
        photo: Photo,
        seed: int | base.Seeds,
        *,
        face: str = "largest",
        with_64: bool = True,
        timeout_s: float | None = None,
        on_image: base.OnImage | None = None,
        **options: Unpack[contract.Options],
    ) -> GeneratedImage | list[GeneratedImage]:
        """Generates faces of the person in a photograph; see `Client.generate_from_photo`."""
        seeds, single = as_seeds(seed)
        if not single:
            embedding = await self.embed(photo, face=face, timeout_s=timeout_s)
            return await self.generate(
                embedding, seeds, with_64=with_64, timeout_s=timeout_s, on_image=on_image, **options
            )
        generation = self._photo_generation(photo, seeds[0], face, with_64, timeout_s, options)
        return await self._generate(generation, on_image)

    async def embed(self, photo: Photo, *, face: str = "largest", timeout_s: float | None = None) -> Embedding:
        """The ID vector of the face in a photograph; see `Client.embed`."""
        found: list[Embedding] = []
        flight = self._embedding_flight(photo, face, timeout_s)
        await self._run([flight], lambda _, tensors: found.append(base.parse_embedding(tensors)))
        return found[0]

    async def ping(self) -> dict[str, Mapping[str, Any]]:
        """What each stage's scheduler says about itself; see `Client.ping`."""
        self._check_open()
        calls = [base.control_call(stage, "ping", "") for stage in contract.STAGES]
        answers = {}
        for call, outcome in zip(calls, await self._ask(calls), strict=True):
            if isinstance(outcome, BaseException):
                raise outcome
            answers[call.model] = base.control_answer(outcome)
        return answers

    async def is_ready(self) -> bool:
        """Whether the server can be reached and says that it takes requests."""
        self._check_open()
        try:
            return await self._transport.is_ready(contract.ID3PM, base.CONTROL_TIMEOUT_S)
        except (UnavailableError, DeadlineExceededError, NotServedError):
            return False

    async def server_info(self) -> base.ServerInfo:
        """Name, version and readiness of the server and of its models; see `Client.server_info`."""
        self._check_open()
        name, version = await self._transport.server_metadata(base.CONTROL_TIMEOUT_S)
        models = {model: await self._transport.is_ready(model, base.CONTROL_TIMEOUT_S) for model in contract.MODELS}
        return base.ServerInfo(name, version, await self._transport.is_ready(None, base.CONTROL_TIMEOUT_S), models)

    async def _generate(
        self, generation: base.Generation, on_image: base.OnImage | None
    ) -> GeneratedImage | list[GeneratedImage]:
        images: dict[int, GeneratedImage] = {}

        def arrived(position: int, tensors: Tensors) -> None:
            images[position] = generation.image(position, tensors)
            if on_image is not None:
                on_image(position, images[position])

        await self._run(generation.flights, arrived)
        return images[0] if generation.single else [images[position] for position in range(len(images))]

    async def _run(self, flights: Sequence[Flight], on_answer: Callable[[int, Tensors], None]) -> None:
        """Sends all flights, as many at once as there are slots; the first failure gives up the others."""
        self._check_open()
        tasks: list[asyncio.Task[None]] = []
        tasks += [asyncio.create_task(self._fly(tasks, i, flight, on_answer)) for i, flight in enumerate(flights)]
        try:
            if tasks:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
                for error in [task.exception() for task in done if not task.cancelled()]:
                    if error is not None:
                        raise error
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._stop_work(flights)
            raise

    async def _fly(
        self,
        tasks: Sequence[asyncio.Task[None]],
        position: int,
        flight: Flight,
        on_answer: Callable[[int, Tensors], None],
    ) -> None:
        """One flight of several from its slot to its answer; it keeps the slot while it waits for another attempt."""
        async with self._slots:
            while True:
                call, timeout_s = flight.take_off(time.monotonic())
                try:
                    tensors = await self._transport.infer(call, timeout_s)
                    break
                except ClientError as error:
                    verdict = flight.fail(error, time.monotonic())
                if isinstance(verdict, ClientError):
                    # Now, before one of them gets this slot.
                    for task in tasks:
                        if task is not asyncio.current_task():
                            task.cancel()
                    raise verdict
                await asyncio.sleep(verdict)
            flight.land(time.monotonic())
        on_answer(position, tensors)

    async def _stop_work(self, flights: Sequence[Flight]) -> None:
        calls = [] if self._closed else base.cancel_calls(flights)
        for call, outcome in zip(calls, await self._ask(calls), strict=True):
            logger.debug("cancel at %s: %s", call.model, outcome)

    async def _ask(self, calls: Sequence[Call]) -> list[Tensors | BaseException]:
        """Sends control calls at once, past the slots, and collects the answers in order."""
        answers = (self._transport.infer(call, base.CONTROL_TIMEOUT_S) for call in calls)
        return await asyncio.gather(*answers, return_exceptions=True)
