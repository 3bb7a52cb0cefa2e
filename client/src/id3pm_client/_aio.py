"""The asyncio client."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, overload

import numpy.typing as npt

from id3pm_client import _base as base
from id3pm_client import _contract as contract
from id3pm_client._aio_questions import AsyncQuestions
from id3pm_client._answers import parse_embedding
from id3pm_client._bar import Bar
from id3pm_client._errors import AccessDeniedError, InvalidRequestError
from id3pm_client._generation import Generation, OnFace, OnImage
from id3pm_client._images import Embedding, GeneratedImage
from id3pm_client._photos import Photo, photo_file
from id3pm_client._replay import ReceiptSource, Replay
from id3pm_client._request import Tensors
from id3pm_client._seeds import as_seeds, random_seed
from id3pm_client._stream import Event

if TYPE_CHECKING:
    from typing import Unpack


class AsyncClient(AsyncQuestions):
    """Client of ID3PM servers for asyncio: `Client`'s methods as coroutines.

    Belongs to one event loop at a time: once that is closed, it connects again in the next (`asyncio.run` twice).

    async with AsyncClient("127.0.0.1:8001") as client:
        face = await client.embed("portrait.jpg")
        images = await client.generate(face.vector, range(8), steps=25)
    """

    @overload
    async def generate(
        self,
        embedding: npt.ArrayLike | Embedding,
        seed: int | None = ...,
        *,
        with_64: bool = ...,
        timeout_s: float | None = ...,
        on_image: OnImage | None = ...,
        progress: bool = ...,
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
        on_image: OnImage | None = ...,
        progress: bool = ...,
        **options: Unpack[contract.Options],
    ) -> list[GeneratedImage]: ...
    async def generate(
        self,
        embedding: npt.ArrayLike | Embedding,
        seed: int | base.Seeds | None = None,
        *,
        with_64: bool = True,
        timeout_s: float | None = None,
        on_image: OnImage | None = None,
        progress: bool = False,
        **options: Unpack[contract.Options],
    ) -> GeneratedImage | list[GeneratedImage]:
        """Generates faces from ID vectors; see `Client.generate`. Cancelling the task stops the server's work too."""
        return await self._generate(self._generation(embedding, seed, with_64, timeout_s, options), on_image, progress)

    @overload
    async def generate_from_photo(
        self,
        photo: Photo,
        seed: int | None = ...,
        *,
        face: str = ...,
        with_64: bool = ...,
        timeout_s: float | None = ...,
        on_face: OnFace | None = ...,
        on_image: OnImage | None = ...,
        progress: bool = ...,
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
        on_face: OnFace | None = ...,
        on_image: OnImage | None = ...,
        progress: bool = ...,
        **options: Unpack[contract.Options],
    ) -> list[GeneratedImage]: ...
    async def generate_from_photo(
        self,
        photo: Photo,
        seed: int | base.Seeds | None = None,
        *,
        face: str = "largest",
        with_64: bool = True,
        timeout_s: float | None = None,
        on_face: OnFace | None = None,
        on_image: OnImage | None = None,
        progress: bool = False,
        **options: Unpack[contract.Options],
    ) -> GeneratedImage | list[GeneratedImage]:
        """Generates faces of the person in a photograph; see `Client.generate_from_photo`."""
        seeds, single = as_seeds(random_seed() if seed is None else seed)
        photo = photo_file(photo)
        if not single or on_face is not None:
            found = await self.embed(photo, face=face, timeout_s=timeout_s)
            if on_face is not None:
                on_face(found)
            generation = self._generation(found, seeds[0] if single else seeds, with_64, timeout_s, options)
            with contextlib.suppress(AccessDeniedError):  # there are servers that take photographs alone
                return await self._generate(generation, on_image, progress)
        generation = self._photo_generation(photo, seeds, single, face, with_64, timeout_s, options)
        return await self._generate(generation, on_image, progress)

    def stream(
        self,
        embedding: npt.ArrayLike | Embedding,
        seed: int | None = None,
        *,
        preview_every: int = 1,
        timeout_s: float | None = None,
        **options: Unpack[contract.Options],
    ) -> AsyncGenerator[Event, None]:
        """Generates one face and tells what happens meanwhile; see `Client.stream`.

        `async for event in client.stream(...)`. Cancelling the task stops the server's work; so does leaving the loop,
        at once with `async with contextlib.aclosing(client.stream(...)) as events`.
        """
        self._check_open()
        if embedding is None:
            raise InvalidRequestError("embedding=None: pass one vector [D]")
        return self._run_stage(self._streaming(embedding, seed, preview_every, timeout_s, options))

    def stream_from_photo(
        self,
        photo: Photo,
        seed: int | None = None,
        *,
        face: str = "largest",
        preview_every: int = 1,
        timeout_s: float | None = None,
        on_face: OnFace | None = None,
        **options: Unpack[contract.Options],
    ) -> AsyncGenerator[Event, None]:
        """`stream` for the person in a photograph; see `Client.stream_from_photo`."""
        self._check_open()
        streaming = self._streaming(None, seed, preview_every, timeout_s, options)
        analysis = self._embedding_request(photo, face, timeout_s)

        def on_answer(_: int, tensors: Tensors) -> None:
            found = parse_embedding(tensors)
            if on_face is not None:
                on_face(found)
            streaming.set_embedding(found)

        async def events() -> AsyncGenerator[Event, None]:
            await self._run([analysis], on_answer)
            streaming.count_from(analysis)
            async with contextlib.aclosing(self._run_stage(streaming)) as flying:
                async for event in flying:
                    yield event

        return events()

    async def replay(
        self,
        receipt: ReceiptSource,
        embedding: npt.ArrayLike | Embedding | None = None,
        *,
        photo: Photo | None = None,
        face: str = "largest",
        timeout_s: float | None = None,
    ) -> GeneratedImage:
        """Makes the image of a receipt again, or says what is different now; see `Client.replay`."""
        replay = Replay(receipt)
        if (embedding is None) == (photo is None):
            raise InvalidRequestError("a receipt holds only the hash of its ID vector: pass either embedding or photo")
        if photo is not None:
            embedding = await self.embed(photo, face=face, timeout_s=timeout_s)
        vector = replay.check_vector(embedding)
        probed: dict[int, Tensors] = {}
        await self._run(self._requests(replay.probe(vector), timeout_s, [], single=True), probed.__setitem__)
        replay.check_probe(probed[0])
        return replay.check(await self.generate(vector, replay.seed, timeout_s=timeout_s, **replay.options))

    async def embed(self, photo: Photo, *, face: str = "largest", timeout_s: float | None = None) -> Embedding:
        """The ID vector of the face in a photograph; see `Client.embed`."""
        found: list[Embedding] = []
        request = self._embedding_request(photo, face, timeout_s)
        await self._run([request], lambda _, tensors: found.append(parse_embedding(tensors)))
        return found[0]

    async def _generate(
        self, generation: Generation[Any], on_image: OnImage | None, progress: bool | Bar
    ) -> GeneratedImage | list[GeneratedImage]:
        with generation.arrivals(on_image, progress) as images:
            async with self._followed(generation.requests, images.bar):
                await self._run(generation.requests, images.add)
        return images.result()
