"""Generators of the images of a shard: the pipeline of this process, or services. The bits are the same."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import InvalidInputError, MissingExtraError, ServerError
from id3pm.installation import how_to_install
from id3pm.pipeline import ImageJob, Pipeline
from id3pm.sampling.receipt import Receipt


@dataclasses.dataclass(frozen=True, eq=False)
class MadeImage:
    """An image.

    Attributes:
        position: Of its job.
        image: uint8 [H, W, 3].
        receipt: See `id3pm.sampling.receipt`.
    """

    position: int
    image: NDArray[np.uint8]
    receipt: Receipt


class Generator(Protocol):
    """Makes images."""

    def generate(self, jobs: Sequence[ImageJob]) -> Iterator[MadeImage]:
        """The images, each as soon as it is done; leaving early ends the others.

        Raises:
            InvalidInputError: A value breaks a rule.
            EngineError: An engine failed.
            ServerError: No service answers.
        """
        ...

    def close(self) -> None:
        """Frees what it holds."""
        ...


class LocalGenerator:
    """The pipeline of this process. All jobs go to its step scheduler at once, which fills its batches from them."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    def generate(self, jobs: Sequence[ImageJob]) -> Iterator[MadeImage]:
        """See `Generator.generate`."""
        for position, images, receipt in self.pipeline.generate_each(jobs):
            yield MadeImage(position, images.image, receipt)

    def close(self) -> None:
        """See `Generator.close`."""
        self.pipeline.close()


class ServedGenerator:
    """Services with the same engines.

    Args:
        urls: `host:port` of their gRPC ports.
        in_flight: How many images are on the way at once, over all services.
        timeout_s: Seconds that an image may take from its sending, retries included.
        settings: Of `id3pm_client.Client`, such as `token` and `ssl`.

    Raises:
        MissingExtraError: The client is not installed.
        InvalidInputError: A setting breaks a rule.
    """

    def __init__(self, urls: Sequence[str], in_flight: int, timeout_s: float, **settings: Any) -> None:
        try:
            import id3pm_client
        except ImportError as error:
            raise MissingExtraError(
                f"--server needs the client: pip install id3pm-client, and {how_to_install('dataset')}"
            ) from error
        self._errors = id3pm_client
        self._in_flight = in_flight
        try:
            self._client = id3pm_client.Client(list(urls), timeout_s=timeout_s, max_in_flight=in_flight, **settings)
        except id3pm_client.ClientError as error:
            raise InvalidInputError(str(error)) from error

    def describe(self) -> dict[str, Any]:
        """What the first service serves."""
        try:
            return dict(self._client.describe())
        except self._errors.ClientError as error:
            raise self._translated(error) from error

    def generate(self, jobs: Sequence[ImageJob]) -> Iterator[MadeImage]:
        """See `Generator.generate`."""
        pool = concurrent.futures.ThreadPoolExecutor(self._in_flight, "id3pm-images")
        try:
            waiting = [pool.submit(self._made, position, job) for position, job in enumerate(jobs)]
            for done in concurrent.futures.as_completed(waiting):
                yield done.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _made(self, position: int, job: ImageJob) -> MadeImage:
        options = dict(job.options)
        if job.attributes is not None:
            options["attributes"] = job.attributes
        try:
            made = self._client.generate(job.embedding, job.seed, with_64=False, **options)
        except self._errors.ClientError as error:
            raise self._translated(error) from error
        return MadeImage(position, np.asarray(made.image), dict(made.receipt))

    def _translated(self, error: Exception) -> InvalidInputError | ServerError:
        if isinstance(error, self._errors.InvalidRequestError):
            return InvalidInputError(f"{', '.join(self._client.urls)}: {error}")
        return ServerError(f"{', '.join(self._client.urls)}: {error}; run again to go on")

    def close(self) -> None:
        """See `Generator.close`."""
        self._client.close()
