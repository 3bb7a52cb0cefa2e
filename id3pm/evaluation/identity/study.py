"""Identity of generated faces: similarity to the target and verification, by guidance scale and by steps.

As Kansy et al. 2023, section 4 and Table 5: ID vectors of people held out from training, one generated image or more
for each, embedded again and compared. Two reference values bound the numbers: pairs of different people, and the
target's own picture slightly altered, which a generated image is not expected to exceed by much.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.config import SamplerName, SamplingOptions, SpacingName, to_json
from id3pm.diffusion.samplers import plan
from id3pm.evaluation.cache import Cache
from id3pm.evaluation.generated import KeptImages
from id3pm.evaluation.identity.targets import Baseline, Measurement, Targets, View
from id3pm.evaluation.judges import Judge
from id3pm.evaluation.verification.similarities import Distribution, Floats, distribution
from id3pm.pipeline import Pipeline


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """How the images of one row of the report are sampled."""

    sampler: SamplerName
    steps: int
    guidance_scale: float
    spacing: SpacingName = "uniform"
    guidance_low: int = 0
    guidance_high: int = SamplingOptions.guidance_high

    @property
    def series(self) -> str:
        """Series of the setting: settings of one series differ only in steps and guidance."""
        return self.sampler if self.spacing == "uniform" else f"{self.sampler} {self.spacing}"

    @property
    def interval(self) -> tuple[int, int]:
        """First and last training timestep at which guidance acts."""
        return self.guidance_low, self.guidance_high


ALWAYS = (0, SamplingOptions.guidance_high)
"""The interval of guidance at every step."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SettingResult:
    """Cost of one setting, and the measurements of all judges.

    Attributes:
        setting: How the images were sampled.
        evaluations: Rows that the 64 px U-Net computes for one image, conditional and unconditional.
        measurements: One per judge.
    """

    setting: Setting
    evaluations: int
    measurements: tuple[Measurement, ...]


def settings_of(
    samplers: Sequence[SamplerName],
    guidance_scales: Sequence[float],
    steps: Sequence[int],
    at_guidance: float,
    at_steps: int,
    spacings: Sequence[SpacingName] = ("uniform",),
    intervals: Sequence[tuple[int, int]] = (),
) -> list[Setting]:
    """All sweeps of every sampler and spacing, each setting once.

    Guidance scales and intervals at fixed steps, steps at a fixed guidance scale.
    """
    wanted = [
        Setting(
            sampler=sampler, steps=count, guidance_scale=scale, spacing=spacing, guidance_low=low, guidance_high=high
        )
        for sampler in samplers
        for spacing in spacings
        for scale, count, (low, high) in [
            (at_guidance, at_steps, ALWAYS),
            *((scale, at_steps, ALWAYS) for scale in guidance_scales),
            *((at_guidance, count, ALWAYS) for count in steps),
            *((at_guidance, at_steps, interval) for interval in intervals),
        ]
    ]
    return list(dict.fromkeys(wanted))


class IdentityStudy:
    """One bundle, some people, some judges; every image and vector is kept, so an interrupted study goes on.

    Args:
        pipeline: Generates.
        targets: Held-out people.
        judges: The FR models that compare.
        cache: Where images and vectors are kept.
        super_resolution: Judge the 256 px images instead of the 64 px images.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        targets: Targets,
        judges: Sequence[Judge],
        cache: Cache,
        super_resolution: bool = False,
    ) -> None:
        self._pipeline = pipeline
        self._targets = targets
        self._images = KeptImages(pipeline, cache, super_resolution)
        self._views = [View(judge, targets, cache) for judge in judges]

    @property
    def baselines(self) -> tuple[Baseline, ...]:
        """The yardsticks of every judge."""
        return tuple(view.baseline for view in self._views)

    def measure(self, setting: Setting, on_images: Callable[[int], None] = lambda count: None) -> SettingResult:
        """`judge` for one row of the report."""
        manifest = self._pipeline.base_manifest
        how = plan(manifest.diffusion, SamplingOptions(**to_json(setting)), manifest.unet.learn_sigma)
        return SettingResult(
            setting=setting,
            evaluations=how.evaluations,
            measurements=self.judge(to_json(setting), on_images),
        )

    def judge(
        self, options: Mapping[str, Any], on_images: Callable[[int], None] = lambda count: None
    ) -> tuple[Measurement, ...]:
        """Generates and judges the images of one way of sampling; one opinion per judge.

        Args:
            options: Sampling options as `Pipeline.generate` takes them.
            on_images: Called with the number of images whenever some are done.
        """
        vectors = self._vectors(options, on_images)
        return tuple(view.measure(found, self._people) for view, found in zip(self._views, vectors, strict=True))

    def agreement(self, options: Mapping[str, Any], reference: Mapping[str, Any]) -> tuple[Distribution, ...]:
        """Similarity of the images of two ways of sampling, for the same people and seeds.

        Args:
            options: Sampling options.
            reference: Other ones.

        Returns:
            For every judge the cosine similarities of the pairs of images; those without a face do not count.
        """
        pairs = zip(self._views, self._vectors(options), self._vectors(reference), strict=True)
        return tuple(distribution(view.agreement(first, second)) for view, first, second in pairs)

    @property
    def _people(self) -> NDArray[np.int64]:
        count, seeds = self._targets.seeds.shape
        return np.repeat(np.arange(count), seeds)

    def _vectors(
        self, options: Mapping[str, Any], on_images: Callable[[int], None] = lambda count: None
    ) -> list[NDArray[np.float32]]:
        """Vectors of each judge for the images of all targets, [P, D]."""
        vectors: list[list[NDArray[np.float32]]] = [[] for _ in self._views]
        people, seeds = self._targets.vectors[self._people], self._targets.seeds.ravel().tolist()
        for images, key in self._images.chunks(people, seeds, options):
            for view, parts in zip(self._views, vectors, strict=True):
                parts.append(view.embed(images, key))
            on_images(len(images))
        return [np.concatenate(parts) for parts in vectors]

    def faces(self, setting: Setting, people: int, seeds: int) -> tuple[NDArray[np.uint8], list[Floats]]:
        """Some people's images with their similarities, for a picture.

        Args:
            setting: How to sample.
            people: The first so many targets.
            seeds: 0 .. seeds - 1, the same for all people.

        Returns:
            uint8 [people, seeds, S, S, 3], and for every judge the similarities [people, seeds].
        """
        rows = np.repeat(np.arange(people), seeds)
        vectors = self._targets.vectors[rows]
        chunks = list(self._images.chunks(vectors, list(range(seeds)) * people, to_json(setting)))
        images = np.concatenate([images for images, _ in chunks])
        similarities = [
            view.similarities(np.concatenate([view.embed(images, key) for images, key in chunks]), rows)
            for view in self._views
        ]
        return (
            images.reshape(people, seeds, *images.shape[1:]),
            [values.reshape(people, seeds) for values in similarities],
        )
