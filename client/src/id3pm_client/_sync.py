"""The blocking client."""

from __future__ import annotations

import collections
import functools
import heapq
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy.typing as npt

from id3pm_client import _base as base
from id3pm_client import _contract as contract
from id3pm_client._arguments import as_seeds
from id3pm_client._errors import ClientError, DeadlineExceededError, NotServedError, UnavailableError
from id3pm_client._flight import Call, Flight, Tensors
from id3pm_client._grpc import GrpcTransport
from id3pm_client._images import Embedding, GeneratedImage, Photo
from id3pm_client._transport import Outcome, SyncTransport

if TYPE_CHECKING:
    from typing import Unpack

logger = logging.getLogger("id3pm_client")
Answers: TypeAlias = "queue.SimpleQueue[tuple[int, Outcome]]"


class Client(base.BaseClient[SyncTransport]):
    """Client of an ID3PM server; thread-safe, to be kept and reused.

    with Client("127.0.0.1:8001") as client:
        face = client.embed("portrait.jpg")
        for image in client.generate(face.vector, range(8), steps=25):
            image.save(f"seed-{image.seed}.png")
    """

    def _open(self, connection: base.Connection) -> SyncTransport:
        return GrpcTransport(connection)

    def _prepare(self) -> None:
        self._slots = threading.BoundedSemaphore(self.max_in_flight)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; the client cannot be used afterwards."""
        self._closed = True
        self._transport.close()

    @overload
    def generate(
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
    def generate(
        self,
        embedding: npt.ArrayLike | Embedding,
        seed: base.Seeds,
        *,
        with_64: bool = ...,
        timeout_s: float | None = ...,
        on_image: base.OnImage | None = ...,
        **options: Unpack[contract.Options],
    ) -> list[GeneratedImage]: ...
    def generate(
        self,
        embedding: npt.ArrayLike | Embedding,
        seed: int | base.Seeds,
        *,
        with_64: bool = True,
        timeout_s: float | None = None,
        on_image: base.OnImage | None = None,
        **options: Unpack[contract.Options],
    ) -> GeneratedImage | list[GeneratedImage]:
        """Generates faces from ID vectors.

        One ID vector and one seed give one image; several of either, a list in order, where one vector goes with all
        seeds and one seed with all vectors. The first failure stops all the others, on the server too.

        Args:
            embedding: ID vector `[D]`, or several `[N, D]`; any real numbers, finite in float32.
            seed: Integer in [0, 2**63 - 1], or N of them. The same seed and vector give the same image.
            with_64: Bring the 64 px image along.
            timeout_s: Seconds that each image may take from its sending, retries included; `None` for the client's.
            on_image: Called with position and image as each arrives, in this thread.
            **options: preset, sampler, steps, spacing, guidance_scale, guidance_low, guidance_high, dynamic_threshold,
                eta, attributes (`[A]` or `[N, A]`), sr_sampler, sr_steps, sr_spacing, sr_eta, sr_consistency, priority.
                `None` is the default of the server's bundle.

        Raises:
            InvalidRequestError: An argument breaks a rule, here or on the server.
            ClientError: Another failure; `error.index` says which image it was.
            TypeError: Unknown option.
        """
        return self._generate(self._generation(embedding, seed, with_64, timeout_s, options), on_image)

    @overload
    def generate_from_photo(
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
    def generate_from_photo(
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
    def generate_from_photo(
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
        """Generates faces of the person in a photograph.

        One seed is one request. For several, the photograph is sent and analysed once, then `generate` does the rest.

        Args:
            photo: Path or bytes of a JPEG or PNG file, PIL image, or uint8 `[H, W, 3]` RGB.
            seed: As for `generate`.
            face: `largest` takes the largest of several faces; `only` refuses several.
            with_64: As for `generate`.
            timeout_s: Seconds that each request may take.
            on_image: As for `generate`.
            **options: As for `generate`.

        Raises:
            InvalidRequestError: As for `generate`, or no usable face.
            ClientError: Another failure.
            OSError: The photograph's file cannot be read.
        """
        seeds, single = as_seeds(seed)
        if not single:
            embedding = self.embed(photo, face=face, timeout_s=timeout_s)
            return self.generate(embedding, seeds, with_64=with_64, timeout_s=timeout_s, on_image=on_image, **options)
        return self._generate(self._photo_generation(photo, seeds[0], face, with_64, timeout_s, options), on_image)

    def embed(self, photo: Photo, *, face: str = "largest", timeout_s: float | None = None) -> Embedding:
        """The ID vector of the face in a photograph.

        Args:
            photo: Path or bytes of a JPEG or PNG file, PIL image, or uint8 `[H, W, 3]` RGB.
            face: `largest` takes the largest of several faces; `only` refuses several.
            timeout_s: Seconds that the request may take; `None` for the client's.

        Raises:
            InvalidRequestError: Not a photograph, or no usable face.
            ClientError: Another failure.
            OSError: The file cannot be read.
        """
        found: list[Embedding] = []
        flight = self._embedding_flight(photo, face, timeout_s)
        self._run([flight], lambda _, tensors: found.append(base.parse_embedding(tensors)))
        return found[0]

    def ping(self) -> dict[str, Mapping[str, Any]]:
        """What each stage's scheduler says about itself: active and waiting requests, age of its loop in ms.

        Unlike `is_ready`, this reaches the process that does the work.

        Raises:
            ClientError: A stage gave no answer.
        """
        self._check_open()
        calls = [base.control_call(stage, "ping", "") for stage in contract.STAGES]
        answers = {}
        for call, outcome in zip(calls, self._ask(calls), strict=True):
            if isinstance(outcome, ClientError):
                raise outcome
            answers[call.model] = base.control_answer(outcome)
        return answers

    def is_ready(self) -> bool:
        """Whether the server can be reached and says that it takes requests."""
        self._check_open()
        try:
            return self._transport.is_ready(contract.ID3PM, base.CONTROL_TIMEOUT_S)
        except (UnavailableError, DeadlineExceededError, NotServedError):
            return False

    def server_info(self) -> base.ServerInfo:
        """Name, version and readiness of the server and of its models.

        Raises:
            ClientError: No answer.
        """
        self._check_open()
        name, version = self._transport.server_metadata(base.CONTROL_TIMEOUT_S)
        models = {model: self._transport.is_ready(model, base.CONTROL_TIMEOUT_S) for model in contract.MODELS}
        return base.ServerInfo(name, version, self._transport.is_ready(None, base.CONTROL_TIMEOUT_S), models)

    def _generate(
        self, generation: base.Generation, on_image: base.OnImage | None
    ) -> GeneratedImage | list[GeneratedImage]:
        images: dict[int, GeneratedImage] = {}

        def arrived(position: int, tensors: Tensors) -> None:
            images[position] = generation.image(position, tensors)
            if on_image is not None:
                on_image(position, images[position])

        self._run(generation.flights, arrived)
        return images[0] if generation.single else [images[position] for position in range(len(images))]

    def _run(self, flights: Sequence[Flight], on_answer: Callable[[int, Tensors], None]) -> None:
        """Sends all flights, as many at once as there are slots; the first failure gives up the others.

        A flight keeps its slot until it has landed, so one that waits for its next attempt holds back new ones.
        """
        self._check_open()
        answers: Answers = queue.SimpleQueue()
        unsent = collections.deque(range(len(flights)))
        again: list[tuple[float, int]] = []  # a heap: when to send which flight once more
        on_the_way: dict[int, Callable[[], None]] = {}
        slots = 0

        def send(position: int) -> None:
            call, timeout_s = flights[position].take_off(time.monotonic())
            on_done = functools.partial(_put, answers, position)
            on_the_way[position] = self._transport.submit(call, timeout_s, on_done)

        try:
            while unsent or slots:
                # Other threads may hold all slots: wait for one only where no answer of our own can free one.
                while unsent and self._slots.acquire(blocking=not slots):
                    slots += 1
                    send(unsent.popleft())
                while again and again[0][0] <= time.monotonic():
                    send(heapq.heappop(again)[1])
                try:
                    position, outcome = answers.get(timeout=max(again[0][0] - time.monotonic(), 0) if again else None)
                except queue.Empty:
                    continue
                del on_the_way[position]
                now = time.monotonic()
                if isinstance(outcome, ClientError):
                    verdict = flights[position].fail(outcome, now)
                    if isinstance(verdict, ClientError):
                        raise verdict
                    heapq.heappush(again, (now + verdict, position))
                else:
                    flights[position].land(now)
                    self._slots.release()
                    slots -= 1
                    on_answer(position, outcome)
        except BaseException:
            for give_up in on_the_way.values():
                give_up()
            self._stop_work(flights)
            raise
        finally:
            for _ in range(slots):
                self._slots.release()

    def _stop_work(self, flights: Sequence[Flight]) -> None:
        calls = [] if self._closed else base.cancel_calls(flights)
        for call, outcome in zip(calls, self._ask(calls), strict=True):
            logger.debug("cancel at %s: %s", call.model, outcome)

    def _ask(self, calls: Sequence[Call]) -> list[Outcome]:
        """Sends control calls at once, past the slots, and collects the answers in order."""
        answers: Answers = queue.SimpleQueue()
        for position, call in enumerate(calls):
            self._transport.submit(call, base.CONTROL_TIMEOUT_S, functools.partial(_put, answers, position))
        outcomes = dict(answers.get() for _ in calls)
        return [outcomes[position] for position in range(len(calls))]


def _put(answers: Answers, position: int, outcome: Outcome) -> None:
    answers.put((position, outcome))
