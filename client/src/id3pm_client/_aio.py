"""The asyncio client."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, overload

import numpy.typing as npt

from id3pm_client import _base as base
from id3pm_client import _contract as contract
from id3pm_client._aio_control import AsyncControl
from id3pm_client._answers import parse_embedding
from id3pm_client._bar import Bar
from id3pm_client._errors import AccessDeniedError, InvalidRequestError
from id3pm_client._generation import Generation, OnFace, OnImage
from id3pm_client._images import Embedding, GeneratedImage
from id3pm_client._photos import Photo, photo_file
from id3pm_client._replay import ReceiptSource, Replay
from id3pm_client._seeds import as_seeds, random_seed
from id3pm_client._stream import AsyncEvents
from id3pm_client._transport import AsyncTransport
from id3pm_client._types import Tensors

if TYPE_CHECKING:
    from typing import Unpack


class AsyncClient(AsyncControl):
    """Client of one ID3PM server or of several for asyncio, to be kept and reused.

    Belongs to one event loop at a time: once that is closed, it connects again in the next (`asyncio.run` twice).

    async with AsyncClient("127.0.0.1:8001") as client:
        face = await client.embed("portrait.jpg")
        for image in await client.generate(face.vector, range(8), steps=25):
            image.save(f"seed-{image.seed}.png")
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
        """Generates faces from ID vectors.

        One ID vector and one seed give one image; several of either, a list in order, where one vector goes with all
        seeds and one seed with all vectors. The first failure stops all the others, on the server too; so does
        cancelling the task.

        Args:
            embedding: ID vector `[D]`, or several `[N, D]`; any real numbers, finite in float32; also tensors of torch
                and other libraries.
            seed: Integer in [0, 2**63 - 1], or N of them. The same seed and vector give the same image. `None`: a
                random one for each image, which `image.seed` and the receipt name.
            with_64: Bring the 64 px image along.
            timeout_s: Seconds that each image may take from its sending, retries included; `None` for the client's.
            on_image: Called with position and image as each arrives, in this thread.
            progress: Show a progress bar on stderr.
            **options: preset, sampler, steps, spacing, guidance_scale, guidance_low, guidance_high, dynamic_threshold,
                eta, attributes (`[A]` or `[N, A]`, or names with values as `describe` lists them, such as
                `{"yaw": -20}`, or N such dicts), sr_sampler, sr_steps, sr_spacing, sr_eta, sr_consistency, priority,
                id_vector_model (taken from an `Embedding` by itself).
                `None` is the default of the server's bundle.

        Raises:
            InvalidRequestError: An argument breaks a rule, here or on the server.
            ClientError: Another failure; `error.index` says which image it was.
            TypeError: Unknown option.
        """
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
        """Generates faces of the person in a photograph.

        One seed is one request. For several, the photograph is sent and analysed once, then `generate` does the rest;
        where the server takes photographs alone, it is sent with every seed.

        Args:
            photo: Path, bytes or opened binary file of a JPEG, PNG or WebP image; PIL image; or uint8 `[H, W, 3]` RGB.
            seed: As for `generate`.
            face: `largest` takes the largest of several faces; `only` refuses several.
            with_64: As for `generate`.
            timeout_s: Seconds that each request may take.
            on_face: Called with the face that was found, before images are made. The photograph is then sent first by
                itself, also for one seed.
            on_image: As for `generate`.
            progress: As for `generate`.
            **options: As for `generate`.

        Raises:
            InvalidRequestError: As for `generate`, or no usable face.
            ClientError: Another failure.
            OSError: The photograph's file cannot be read.
        """
        seeds, single = as_seeds(random_seed() if seed is None else seed)
        photo = photo_file(photo)
        if not single or on_face is not None:
            found = await self.embed(photo, face=face, timeout_s=timeout_s)
            if on_face is not None:
                on_face(found)
            generation = self._generation(found, seeds[0] if single else seeds, with_64, timeout_s, options)
            with contextlib.suppress(AccessDeniedError):  # some servers take photographs only
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
    ) -> AsyncEvents:
        """Generates one face and tells what happens meanwhile.

        Yields `Progress` after the steps of either stage, `Image64` as soon as the 64 px image is there, and at last
        the `GeneratedImage` that `generate` would give: the same bits, the same receipt. Nothing is sent before the
        first `anext`; leaving early stops the work on the server, as does cancelling the task. To leave early at once:
        `async with contextlib.aclosing(client.stream(...)) as events`.

        Args:
            embedding: ID vector `[D]`.
            seed: Integer in [0, 2**63 - 1]; `None`: a random one.
            preview_every: Steps between two previews; 0 for none.
            timeout_s: Seconds for the whole image, retries included; `None` for the client's.
            **options: As for `generate`.

        Raises:
            InvalidRequestError: An argument breaks a rule; what only the server knows is raised while iterating.
            ClientError: Another failure, while iterating.
            TypeError: Unknown option.
        """
        self._check_open()
        if embedding is None:
            raise InvalidRequestError("embedding=None: pass one vector [D]")
        return self._stream_image(self._streaming(embedding, seed, preview_every, timeout_s, options))

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
    ) -> AsyncEvents:
        """`stream` for the person in a photograph, which is analysed first.

        Args:
            photo: As for `embed`.
            seed: As for `stream`.
            face: As for `embed`.
            preview_every: As for `stream`.
            timeout_s: Seconds for the whole, the analysis of the photograph included.
            on_face: As for `generate_from_photo`.
            **options: As for `generate`.

        Raises:
            InvalidRequestError: As for `stream`; no usable face, while iterating.
            ClientError: Another failure, while iterating.
            OSError: The photograph's file cannot be read.
        """
        self._check_open()
        streaming = self._streaming(None, seed, preview_every, timeout_s, options)
        analysis = self._embedding_request(photo, face, timeout_s)

        def on_answer(_: int, tensors: Tensors) -> None:
            found = parse_embedding(tensors)
            if on_face is not None:
                on_face(found)
            streaming.set_embedding(found)

        return self._stream_image(streaming, analysis, on_answer)

    async def replay(
        self,
        receipt: ReceiptSource,
        embedding: npt.ArrayLike | Embedding | None = None,
        *,
        photo: Photo | None = None,
        face: str = "largest",
        timeout_s: float | None = None,
    ) -> GeneratedImage:
        """Makes the image of a receipt again, or says what is different now.

        Args:
            receipt: A dict, its JSON text, the path of a PNG that carries it or of its JSON, or a `GeneratedImage`.
            embedding: The ID vector `[D]`; a receipt holds only its hash.
            photo: Instead, the photograph that it came from.
            face: As for `embed`.
            timeout_s: Seconds for each request; `None` for the client's.

        Returns:
            The identical image: the same receipt and, where `receipt` is a picture, the same pixels.

        Raises:
            ReplayError: The vector, the server's engines or versions, or the image differ; `error.differences` names
                the fields. Vector and server are compared before the work.
            InvalidRequestError: Not a receipt.
            ClientError: Another failure.
            OSError: A file cannot be read.
        """
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
        """The ID vector of the face in a photograph.

        Args:
            photo: Path, bytes or opened binary file of a JPEG, PNG or WebP image; PIL image; or uint8 `[H, W, 3]` RGB.
            face: `largest` takes the largest of several faces; `only` refuses several.
            timeout_s: Seconds that the request may take; `None` for the client's.

        Raises:
            InvalidRequestError: Not a photograph, or no usable face.
            ClientError: Another failure.
            OSError: The file cannot be read.
        """
        found: list[Embedding] = []
        request = self._embedding_request(photo, face, timeout_s)
        await self._run([request], lambda _, tensors: found.append(parse_embedding(tensors)))
        return found[0]

    async def _generate(
        self, generation: Generation[AsyncTransport], on_image: OnImage | None, progress: bool | Bar
    ) -> GeneratedImage | list[GeneratedImage]:
        with generation.arrivals(on_image, progress) as images:
            async with self._with_progress(generation.requests, images.bar):
                await self._run(generation.requests, images.add)
        return images.result()
