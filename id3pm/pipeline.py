"""Photo or ID vector in, faces out, in this process: the same images as the served ensemble, bit for bit.

For benchmarks, evaluation and notebooks; it reads the same engine folders as the server.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from id3pm.config import SamplingOptions
from id3pm.diffusion.noise import STAGE_BASE, STAGE_SR
from id3pm.diffusion.plans import check_options
from id3pm.engines.base import Engine, load_engine
from id3pm.engines.manifest import BUILD_HINT, Manifest, read_manifest
from id3pm.errors import EngineError
from id3pm.face.choice import FacePolicy
from id3pm.face.manifest import takes_unit_vectors
from id3pm.face.stage import FaceResult, FaceStage
from id3pm.formats.bundle import Stage
from id3pm.formats.images import to_chw
from id3pm.sampling.cascade import Cascade, CascadeImages
from id3pm.sampling.inputs import Attributes, attributes_of, paired
from id3pm.sampling.options import BASE_OPTIONS, SR_OPTIONS, base_stage, both_stages
from id3pm.sampling.receipt import Receipt, add_stage, new_receipt
from id3pm.sampling.request import SampleRequest, require_network, validated
from id3pm.sampling.scheduler import StepScheduler
from id3pm.sampling.wait_all import arrivals, collect


@dataclasses.dataclass(frozen=True, eq=False)
class Generated:
    """Generated faces, in the order they were asked for.

    Attributes:
        images: uint8 [N, 256, 256, 3].
        images_64: uint8 [N, 64, 64, 3], what super-resolution was given.
        receipts: One per image; see `id3pm.sampling.receipt`.
    """

    images: NDArray[np.uint8]
    images_64: NDArray[np.uint8]
    receipts: list[Receipt]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ImageJob:
    """One image with options of its own, for `Pipeline.generate_each`.

    Attributes:
        embedding: ID vector [D].
        seed: 0 .. 2^63 - 1.
        attributes: A vector [A], or names with values; `None` for unspecified.
        options: As of `Pipeline.generate`.
    """

    embedding: ArrayLike
    seed: int
    attributes: ArrayLike | Mapping[str, Any] | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, eq=False)
class _Stage:
    engine: Engine
    manifest: Manifest

    @classmethod
    def load(cls, folder: Path, stage: Stage, device: str, threads: int | None) -> _Stage:
        manifest = read_manifest(folder)
        if manifest.stage != stage:
            raise EngineError(f"the engine of stage {manifest.stage} lies where {stage} belongs; {BUILD_HINT}")
        return cls(load_engine(folder, device=device, threads=threads), manifest)

    def require(self, options: SamplingOptions, names: Mapping[str, str]) -> None:
        """Refuses what the network cannot honour; `names` has the fields of `options` by public name."""
        check_options(self.manifest.diffusion, options, {field: name for name, field in names.items()})
        require_network(options, self.manifest.unet)

    def scheduler(self, stage: int) -> StepScheduler:
        # The caller's list is the queue here, so nothing is turned away.
        rows = self.manifest.max_batch
        return StepScheduler(self.engine, self.manifest.diffusion, stage, max_rows=rows, max_waiting=sys.maxsize)


class Pipeline:
    """Both U-Nets and the face stage of one Triton repository. Close it, or use it as a context manager."""

    def __init__(self, repository: Path, base: _Stage, sr: _Stage, threads: int | None) -> None:
        """Use `Pipeline.load`."""
        self._face_folder = repository / "face_embedding" / "1" / "engine"
        self._threads = threads
        self._base = base
        self._sr = sr
        self._unit_vectors = takes_unit_vectors(
            base.manifest.l2_normalised, base.manifest.id_vector_model, self._face_folder
        )
        self._cascade = Cascade(base.scheduler(STAGE_BASE), sr.scheduler(STAGE_SR))
        self._calls = itertools.count()

    @classmethod
    def load(cls, repository: str | Path, device: str = "cpu", threads: int | None = None) -> Pipeline:
        """Loads the engines that `id3pm build` left in a Triton repository.

        Args:
            repository: The `triton_repo` folder.
            device: See `load_engine`.
            threads: CPU threads of each engine, or `None` for all cores.

        Raises:
            EngineMissingError: An engine has not been built.
            EngineError: An engine is damaged or from another bundle, or this machine cannot run it.
        """
        repository = Path(repository)
        base = _Stage.load(repository / "denoiser_64" / "1" / "engine", "base", device, threads)
        sr = _Stage.load(repository / "super_resolution" / "1" / "engine", "sr", device, threads)
        first, second = base.manifest.bundle, sr.manifest.bundle
        if first.bundle_json_sha256 != second.bundle_json_sha256:
            raise EngineError(
                f"the engines were built from bundles {first.name} ({first.bundle_json_sha256[:8]}) and "
                f"{second.name} ({second.bundle_json_sha256[:8]}), not from one; {BUILD_HINT}"
            )
        return cls(repository, base, sr, threads)

    @property
    def base_manifest(self) -> Manifest:
        """What the 64 px engine is and was built from."""
        return self._base.manifest

    @property
    def sr_manifest(self) -> Manifest:
        """Of the super-resolution engine."""
        return self._sr.manifest

    @functools.cached_property
    def face_stage(self) -> FaceStage:
        """The face stage, loaded when it is first used.

        Raises:
            EngineMissingError: Its models have not been built.
            EngineError: They are damaged, or give other ID vectors than the U-Net was trained with.
        """
        stage = FaceStage.load(self._face_folder, threads=self._threads)
        wanted = self._base.manifest.id_vector_model
        if stage.id_vector_model != wanted:
            raise EngineError(f"the face stage gives {stage.id_vector_model} ID vectors, the U-Net takes {wanted}")
        return stage

    def embed(self, photo: bytes, face: FacePolicy = "largest") -> FaceResult:
        """The ID vector of the face in a photograph; see `FaceStage.embed` for arguments and errors."""
        return self.face_stage.embed(photo, face)

    def generate(
        self,
        embeddings: ArrayLike,
        seeds: int | Sequence[int] | None = None,
        *,
        attributes: Attributes | None = None,
        **options: Any,
    ) -> Generated:
        """Generates one face per ID vector and seed; a single one of either goes with all of the other.

        Args:
            embeddings: ID vectors [N, D], or one of [D], as `embed` gives them.
            seeds: One seed, or N of them, 0 .. 2^63 - 1; `None`: a random one for each ID vector, which the receipts
                name.
            attributes: A vector [A] or names with values (`id3pm.attributes.encode`) for all images; or one per image:
                [N, A], or a list of such dicts. `None` for unspecified.
            **options: `preset`, `steps`, `guidance_scale`, ..., `sr_sampler`, `sr_steps`, ...; what is left out
                takes the preset's values, or else the bundle's.

        Raises:
            InvalidInputError: A value breaks a rule; the message names both.
            EngineError: An engine failed.
        """
        base, sr = self._options(options)
        requests = self._requests(embeddings, seeds, base, attributes)
        results: list[CascadeImages] = collect(
            requests, lambda request, done: self._cascade.submit(request, sr, done), self._cascade.cancel
        )
        return Generated(
            images=np.stack([result.image for result in results]),
            images_64=np.stack([result.image_64 for result in results]),
            receipts=[self._receipt(request, sr) for request in requests],
        )

    def generate_each(self, jobs: Sequence[ImageJob]) -> Iterator[tuple[int, CascadeImages, Receipt]]:
        """Generates images that differ in their options; each is given as soon as it is done.

        All of them are in the schedulers at once, so that batches are full. Leaving early ends the others.

        Yields:
            Position of the job, both images, receipt.

        Raises:
            InvalidInputError: A value breaks a rule; the message names both.
            EngineError: An engine failed.
        """
        requests, sr_options = [], []
        for job in jobs:
            base, sr = self._options(job.options)
            requests += self._requests(job.embedding, job.seed, base, job.attributes)
            sr_options.append(sr)
        options = {request.id: sr for request, sr in zip(requests, sr_options, strict=True)}
        done: Iterator[tuple[int, CascadeImages]] = arrivals(
            requests,
            lambda request, on_done: self._cascade.submit(request, options[request.id], on_done),
            self._cascade.cancel,
        )
        for position, images in done:
            yield position, images, self._receipt(requests[position], sr_options[position])

    def generate_64(
        self, embeddings: ArrayLike, seeds: int | Sequence[int], *, attributes: Attributes | None = None, **options: Any
    ) -> NDArray[np.uint8]:
        """As `generate`, without super-resolution and its options.

        Returns:
            uint8 [N, 64, 64, 3]: the same as `generate(...).images_64`. `receipts` gives their receipts.

        Raises:
            InvalidInputError: A value breaks a rule; the message names both.
            EngineError: The engine failed.
        """
        requests = self._requests(embeddings, seeds, self._base_options(options), attributes)
        return _sampled(self._cascade.base, requests)

    def enlarge(self, images_64: NDArray[np.uint8], seeds: int | Sequence[int], **options: Any) -> NDArray[np.uint8]:
        """Super-resolution alone, of what `generate_64` made with these seeds.

        Args:
            images_64: uint8 [N, 64, 64, 3].
            seeds: One seed, or N of them.
            **options: See `generate`; those of the 64 px stage change nothing.

        Returns:
            uint8 [N, 256, 256, 3]: the same as `generate(...).images`.

        Raises:
            InvalidInputError: A value breaks a rule; the message names both.
            EngineError: The engine failed.
        """
        _, sr = self._options(options)
        seed_list = paired(np.zeros((len(images_64), 1)), seeds)[1]
        call = next(self._calls)
        requests = [
            SampleRequest(id=f"{call}-{index}", seed=seed, options=sr, low_res=low)
            for index, (seed, low) in enumerate(zip(seed_list, to_chw(images_64), strict=True))
        ]
        return _sampled(self._cascade.sr, requests)

    def receipts(
        self,
        embeddings: ArrayLike,
        seeds: int | Sequence[int],
        *,
        attributes: Attributes | None = None,
        super_resolution: bool = True,
        **options: Any,
    ) -> list[Receipt]:
        """The receipts of what `generate` (or `generate_64`) would make, without making it.

        Equal receipts mean equal images, so a caller can tell whether it has an image already.

        Args:
            embeddings: See `generate`.
            seeds: See `generate`.
            attributes: See `generate`.
            super_resolution: False for `generate_64`.
            **options: See `generate`.

        Raises:
            InvalidInputError: A value breaks a rule; the message names both.
        """
        base, sr = self._options(options) if super_resolution else (self._base_options(options), None)
        return [self._receipt(request, sr) for request in self._requests(embeddings, seeds, base, attributes)]

    def check(self, *, super_resolution: bool = True, **options: Any) -> None:
        """Refuses options that `generate` would refuse; generates nothing. For a check before long work.

        Args:
            super_resolution: False for `generate_64`.
            **options: See `generate`.

        Raises:
            InvalidOptionError: A value breaks a rule, or a network of the bundle cannot honour it.
        """
        if super_resolution:
            self._options(options)
        else:
            self._base_options(options)

    def _options(self, given: Mapping[str, Any]) -> tuple[SamplingOptions, SamplingOptions]:
        base, sr = both_stages(self._base.manifest.sampling, self._sr.manifest.sampling, given)
        self._base.require(base, BASE_OPTIONS)
        self._sr.require(sr, SR_OPTIONS)
        return base, sr

    def _base_options(self, given: Mapping[str, Any]) -> SamplingOptions:
        base = base_stage(self._base.manifest.sampling, given)
        self._base.require(base, BASE_OPTIONS)
        return base

    def _requests(
        self,
        embeddings: ArrayLike,
        seeds: int | Sequence[int] | None,
        options: SamplingOptions,
        attributes: Attributes | None,
    ) -> list[SampleRequest]:
        vectors, seed_list = paired(embeddings, seeds)
        attribute_rows = attributes_of(
            attributes, len(vectors), self._base.manifest.attribute_set, self._base.manifest.bundle.name
        )
        call = next(self._calls)
        requests = [
            SampleRequest(id=f"{call}-{index}", seed=seed, options=options, identity=vector, attributes=row)
            for index, (vector, seed, row) in enumerate(zip(vectors, seed_list, attribute_rows, strict=True))
        ]
        unet = self._base.manifest.unet
        return [validated(request, unet, unit_vectors=self._unit_vectors) for request in requests]

    def _receipt(self, request: SampleRequest, sr: SamplingOptions | None) -> Receipt:
        base = self._base
        receipt = new_receipt(base.manifest.bundle.name, request.seed, request.identity)
        receipt = add_stage(receipt, base.manifest, base.engine.description, request.options, request.attributes)
        return receipt if sr is None else add_stage(receipt, self._sr.manifest, self._sr.engine.description, sr)

    def close(self) -> None:
        """Ends both schedulers and frees the engines."""
        for scheduler in (self._cascade.base, self._cascade.sr):
            if scheduler.close():
                scheduler.engine.close()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _sampled(scheduler: StepScheduler, requests: Sequence[SampleRequest]) -> NDArray[np.uint8]:
    """The images of one stage alone."""
    return np.stack([sample.image for sample in collect(requests, scheduler.submit, scheduler.cancel)])
