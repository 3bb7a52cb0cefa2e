"""Verification of real pictures, and of pairs in which one picture is replaced by a generated one.

Kansy et al. 2023, section 4.2 and Table 5 of the supplement: the ID vector of one picture of each pair, a face
generated from it, and the protocol's decision between that face and the other picture.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import ImageError
from id3pm.evaluation.cache import Cache
from id3pm.evaluation.generated import KeptImages
from id3pm.evaluation.verification.fr_models import FaceEngineModel, PairModel
from id3pm.evaluation.verification.pairs import PairSet
from id3pm.evaluation.verification.protocol import Accuracy, ProtocolName, accuracy
from id3pm.formats.photo_decoding import decode_photo
from id3pm.pipeline import Pipeline

CHUNK = 32  # pictures between two saves
Replace = Literal["first", "second"]
OnPictures = Callable[[int], object]
Chunks = Callable[[NDArray[np.float32], Sequence[int]], Iterator[tuple[NDArray[np.uint8], object]]]
"""Makes images uint8 [n, H, W, 3] of ID vectors [N, D] with these seeds, in order, with what they depend on as JSON."""


class OtherMethod(Protocol):
    """A method in the place of ID3PM."""

    @property
    def label(self) -> str:
        """Of its row."""
        ...

    @property
    def aligned(self) -> bool:
        """Whether its images are crops of 112 px."""
        ...

    def chunks(self, vectors: NDArray[np.float32], seeds: Sequence[int]) -> Iterator[tuple[NDArray[np.uint8], object]]:
        """See `Chunks`."""
        ...


def _silent(count: int) -> None:
    """Reports no progress."""


@dataclasses.dataclass(frozen=True)
class AccuracyRow:
    """Accuracies of one kind of pictures.

    Attributes:
        label: `Real images`, or how one picture of each pair was generated.
        options: Sampling options; `None` for real pictures and other methods.
        accuracies: For every set, for every FR model.
    """

    label: str
    options: Mapping[str, Any] | None
    accuracies: tuple[tuple[Accuracy, ...], ...]


class VerificationStudy:
    """Some sets, some FR models, one generator; images and vectors are kept, so an interrupted study goes on.

    Args:
        sets: Pairs of pictures.
        training: The FR model whose ID vectors the generator takes.
        models: The FR models that decide.
        pipeline: Generates.
        cache: Where images and vectors are kept.
        protocol: How vectors are compared.
        replace: Which picture of each pair a generated one takes the place of.
        super_resolution: Judge the 256 px images instead of the 64 px images.
    """

    def __init__(
        self,
        sets: Sequence[PairSet],
        training: FaceEngineModel,
        models: Sequence[PairModel],
        pipeline: Pipeline,
        cache: Cache,
        protocol: ProtocolName = "paper",
        replace: Replace = "second",
        super_resolution: bool = False,
    ) -> None:
        self._sets = sets
        self._training = training
        self._models = models
        self._images = KeptImages(pipeline, cache, super_resolution)
        self._cache = cache
        self._protocol: ProtocolName = protocol
        self._side = ("first", "second").index(replace)
        self._hashes: dict[int, list[str]] = {}

    def pictures(self) -> int:
        """How many real pictures the sets have together."""
        return sum(len(pairs.pictures) for pairs in self._sets)

    def images(self) -> int:
        """How many images are generated for one way of sampling."""
        return sum(len(np.unique(pairs.pairs[:, self._side])) for pairs in self._sets)

    def real(self, on_pictures: OnPictures = _silent) -> AccuracyRow:
        """The accuracies of the pictures as they are.

        Args:
            on_pictures: Called with the number of pictures whenever some are done.

        Raises:
            ImageError: A picture cannot be decoded.
        """
        found = []
        for number, pairs in enumerate(self._sets):
            views = self._real_views(number, self._models, on_pictures)
            found.append(tuple(accuracy(self._protocol, view[pairs.pairs], pairs.same) for view in views))
        return AccuracyRow("Real images", None, tuple(found))

    def generated(self, label: str, options: Mapping[str, Any], on_images: OnPictures = _silent) -> AccuracyRow:
        """The accuracies with one picture of each pair replaced by a generated one.

        The image of a picture has a seed that follows from the picture's content: one picture, one image. Where the
        training model finds no face in it, there is none, and the pair is decided wrongly.

        Args:
            label: For the report.
            options: Sampling options as `Pipeline.generate` takes them.
            on_images: Called with the number of images whenever some are done.
        """
        return self.made_by(label, dict(options), functools.partial(self._images.chunks, options=options), on_images)

    def made_by(
        self,
        label: str,
        options: dict[str, Any] | None,
        chunks: Chunks,
        on_images: OnPictures = _silent,
        *,
        aligned: bool = False,
    ) -> AccuracyRow:
        """The same for images of any method.

        Args:
            label: For the report.
            options: Sampling options, or `None`.
            chunks: Makes the images.
            on_images: Called with the number of images whenever some are done.
            aligned: They are crops of 112 px.
        """
        found = []
        for number, pairs in enumerate(self._sets):
            replaced = np.unique(pairs.pairs[:, self._side])
            (training,) = self._real_views(number, [self._training])
            vectors = self._training.id_vectors(training)
            made = self._generated_views(number, replaced, vectors, chunks, aligned, on_images)
            row = []
            for real, generated in zip(self._real_views(number, self._models), made, strict=True):
                views = real[pairs.pairs]
                views[:, self._side] = generated[np.searchsorted(replaced, pairs.pairs[:, self._side])]
                row.append(accuracy(self._protocol, views, pairs.same))
            found.append(tuple(row))
        return AccuracyRow(label, options, tuple(found))

    def _real_views(
        self, number: int, models: Sequence[PairModel], on_pictures: OnPictures = _silent
    ) -> list[NDArray[np.float32]]:
        """What each model sees in all pictures of a set, [N, 2, D]."""
        pairs = self._sets[number]
        hashes = self._hashes.setdefault(number, [hashlib.sha256(one.read()).hexdigest() for one in pairs.pictures])
        views: list[list[NDArray[np.float32]]] = [[] for _ in models]
        for start in range(0, len(pairs.pictures), CHUNK):
            chunk = range(start, min(start + CHUNK, len(pairs.pictures)))
            for model, parts in zip(models, views, strict=True):
                key = {"model": model.key, "aligned": pairs.aligned, "pictures": [hashes[one] for one in chunk]}
                parts.append(self._cache.array(key, lambda m=model, c=chunk: self._seen(pairs, m, c)))  # type: ignore[misc]
            on_pictures(len(chunk))
        return [np.concatenate(parts) for parts in views]

    def _seen(self, pairs: PairSet, model: PairModel, numbers: Sequence[int]) -> NDArray[np.float32]:
        return model.views([_decoded(pairs, number) for number in numbers], pairs.aligned)

    def _generated_views(
        self,
        number: int,
        replaced: NDArray[np.int64],
        vectors: NDArray[np.float32],
        chunks: Chunks,
        aligned: bool,
        on_images: OnPictures,
    ) -> list[NDArray[np.float32]]:
        """What each model sees in the images of these pictures, [R, 2, D]."""
        seeds = [int(self._hashes[number][one][:15], 16) for one in replaced]
        usable = np.flatnonzero(np.isfinite(vectors[replaced]).all(axis=1))
        parts: list[list[NDArray[np.float32]]] = [[] for _ in self._models]
        for images, key in chunks(vectors[replaced[usable]], [seeds[row] for row in usable]):
            for model, found in zip(self._models, parts, strict=True):
                views_key = {"model": model.key, "images": key}
                found.append(self._cache.array(views_key, functools.partial(model.views, list(images), aligned)))
            on_images(len(images))
        return [_placed(len(replaced), usable, found) for found in parts]


def _decoded(pairs: PairSet, number: int) -> NDArray[np.uint8]:
    picture = pairs.pictures[number]
    try:
        return decode_photo(picture.read())
    except ImageError as error:
        raise ImageError(f"{pairs.name}, {picture.name}: {error}") from error


def _placed(count: int, rows: NDArray[np.int64], parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Views of these rows among `count`; NaN in the others."""
    if not parts:
        return np.full((count, 2, 1), np.nan, np.float32)
    found = np.concatenate(parts)
    views = np.full((count, *found.shape[1:]), np.nan, np.float32)
    views[rows] = found
    return views
