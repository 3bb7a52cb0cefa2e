"""The requests of one call of `generate`, and the images of their responses; shared by both clients."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Generic, TypeAlias, TypeVar

from id3pm_client._answers import json_object, picture
from id3pm_client._bar import Bar
from id3pm_client._images import Embedding, GeneratedImage
from id3pm_client._request import ClientRequest
from id3pm_client._types import Tensors

TransportT = TypeVar("TransportT")
OnImage: TypeAlias = Callable[[int, GeneratedImage], None]
OnFace: TypeAlias = Callable[[Embedding], None]


@dataclasses.dataclass(frozen=True)
class Generation(Generic[TransportT]):
    """The requests of one call of `generate`.

    Attributes:
        requests: One per image, in order.
        seeds: One per image.
        single: Whether the caller gave one ID vector and one seed, and gets one image instead of a list.
    """

    requests: Sequence[ClientRequest[TransportT]]
    seeds: Sequence[int]
    single: bool

    def arrivals(self, on_image: OnImage | None, progress: bool | Bar) -> Arrivals[TransportT]:
        """Collects the answers; a context manager around their arrival.

        Args:
            on_image: Called with each image.
            progress: Whether to show a bar, or the bar.
        """
        bar = progress if isinstance(progress, Bar) else Bar(len(self.requests), "images") if progress else None
        return Arrivals(self, on_image, bar)

    def image(self, index: int, tensors: Tensors) -> GeneratedImage:
        """The generated image number `index` from the server's answer."""
        request = self.requests[index]
        return GeneratedImage(
            image=picture(tensors, "image"),
            image_64=picture(tensors, "image_64") if "image_64" in tensors else None,
            seed=self.seeds[index],
            receipt=json_object(tensors, "receipt"),
            request_id=request.request_id,
            seconds=request.seconds,
        )


class Arrivals(Generic[TransportT]):
    """The images of one call of `generate` as they arrive."""

    def __init__(self, generation: Generation[TransportT], on_image: OnImage | None, bar: Bar | None) -> None:
        self._generation = generation
        self._on_image = on_image
        self.bar = bar
        self._images: dict[int, GeneratedImage] = {}

    def __enter__(self) -> Arrivals[TransportT]:
        if self.bar is not None:
            self.bar.update(0, len(self._generation.requests), "images")
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()

    def add(self, position: int, tensors: Tensors) -> None:
        """An answer has come."""
        self._images[position] = self._generation.image(position, tensors)
        if self.bar is not None:
            self.bar.update(len(self._images), len(self._generation.requests), "images")
        if self._on_image is not None:
            self._on_image(position, self._images[position])

    def result(self) -> GeneratedImage | list[GeneratedImage]:
        """All images in order, or the only one."""
        if self._generation.single:
            return self._images[0]
        return [self._images[position] for position in range(len(self._images))]
