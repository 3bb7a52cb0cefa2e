"""Makes a plan for the bundle of built engines."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from id3pm.config import SamplingOptions
from id3pm.diffusion.plans import plan
from id3pm.engines.manifest import Manifest, read_manifest
from id3pm.errors import ConfigError, EngineMissingError, InvalidInputError
from id3pm.face.manifest import read_manifest as read_face_manifest
from id3pm.face.manifest import takes_unit_vectors
from id3pm.idspace.space import Space
from id3pm.sampling.options import BASE_OPTIONS, PRESET, SR_OPTIONS, both_stages
from id3pm.synthetic.identities import Identities
from id3pm.synthetic.judging import FACES, default_similarity, models_of
from id3pm.synthetic.plan_file import MAX_IMAGES, MAX_SHARD, write_plan
from id3pm.synthetic.plan_header import Filters, ImageFormat, PlanHeader
from id3pm.synthetic.variations import Variations

DEFAULT_SECOND = 0.4
"""Least similarity of the second model: 1 minus the distance of 0.6 that dlib's authors publish."""
Limit = float | None | Literal["default"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
    """Filters as they are asked for: `default` is the FR model's published threshold, `None` switches a filter off."""

    least_similarity: Limit = "default"
    most_other: Limit = "default"
    second: Literal["dlib"] | None = None
    least_second: Limit = "default"
    attempts: int = 4


class Planner:
    """Plans for the bundle of a model repository.

    Args:
        repository: With built engines; with face models, too, where images are filtered.

    Raises:
        EngineMissingError: The engines have not been built.
        EngineError: A manifest is damaged.
    """

    def __init__(self, repository: Path) -> None:
        self._repository = repository
        self._base: Manifest = read_manifest(repository / "denoiser_64/1/engine")
        self._sr: Manifest = read_manifest(repository / "super_resolution/1/engine")

    @property
    def space(self) -> Space:
        """The ID vectors that the bundle takes."""
        dim = self._base.unet.identity_dim
        if dim is None:
            raise InvalidInputError(f"bundle {self._base.bundle.name} takes no ID vectors")
        return Space(id_vector_model=self._base.id_vector_model, identity_dim=dim)

    def filters(self, rules: Rules) -> Filters:
        """The filters with their defaults.

        Raises:
            InvalidInputError: A value breaks a rule, or the FR model has no published threshold.
            EngineMissingError: The face models have not been built.
        """
        limits: dict[str, float | None] = {}
        asked = {name: getattr(rules, name) for name in ("least_similarity", "most_other", "least_second")}
        if rules.second is None and asked["least_second"] == "default":
            asked["least_second"] = None
        on = any(limit is not None for limit in asked.values()) or rules.second is not None
        models: dict[str, str] = {}
        if on:
            try:
                manifest = read_face_manifest(self._repository / FACES)
            except EngineMissingError as error:
                raise EngineMissingError(
                    f"{error}; without filters none are needed: --second none --least-similarity none --most-other none"
                ) from error
            if manifest.id_vector_model != self._base.id_vector_model:
                raise InvalidInputError(
                    f"the face models are of {manifest.id_vector_model}, the bundle takes vectors of "
                    f"{self._base.id_vector_model}: build those, or switch all filters off"
                )
            models = models_of(manifest, rules.second is not None)
            for name, limit in asked.items():
                if limit == "default":
                    limit = DEFAULT_SECOND if name == "least_second" else default_similarity(manifest)
                limits[name] = limit
        try:
            return Filters(
                least_similarity=limits.get("least_similarity"),
                most_other=limits.get("most_other"),
                second=rules.second,
                least_second=limits.get("least_second"),
                attempts=rules.attempts,
                models=models,
            )
        except ConfigError as error:
            raise InvalidInputError(str(error)) from error

    def options(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All sampling options by public name, so that no default of a bundle or a version is left to chance.

        Raises:
            InvalidOptionError: A name is unknown, or a value breaks a rule.
        """
        if "guidance_scale" in given:
            raise InvalidInputError("guidance_scale: give --guidance, which is drawn for each image")
        base, sr = both_stages(self._base.sampling, self._sr.sampling, given)
        for manifest, sampling in ((self._base, base), (self._sr, sr)):
            plan(manifest.diffusion, sampling, manifest.unet.learn_sigma)  # more steps than the model was trained with
        options = {name: getattr(base, field) for name, field in BASE_OPTIONS.items() if name != "guidance_scale"}
        options |= {name: getattr(sr, field) for name, field in SR_OPTIONS.items()}
        return {**({PRESET: given[PRESET]} if PRESET in given else {}), **options}

    def guidance(self, given: Mapping[str, Any]) -> float:
        """The guidance scale of a preset or of the bundle."""
        base: SamplingOptions = both_stages(self._base.sampling, self._sr.sampling, given)[0]
        return base.guidance_scale

    def write(
        self,
        identities: Identities,
        variations: Variations,
        filters: Filters,
        options: Mapping[str, Any],
        *,
        seed: int,
        source: str,
        shard_size: int,
        image_format: ImageFormat,
        on_identities: Callable[[int], object] = lambda count: None,
    ) -> tuple[PlanHeader, bytes]:
        """The plan's header, and its file; equal arguments give equal bytes.

        Raises:
            InvalidInputError: A value breaks a rule, or the bundle lacks an attribute.
        """
        if not 1 <= variations.images <= MAX_SHARD:
            raise InvalidInputError(f"images={variations.images}: must be from 1 to {MAX_SHARD} for each identity")
        if not 1 <= shard_size <= MAX_SHARD:
            raise InvalidInputError(f"shard_size={shard_size}: must be from 1 to {MAX_SHARD} images")
        low, high = variations.guidance_scale.bounds
        if not 1.0 <= low <= high <= 10.0:
            raise InvalidInputError(f"guidance {low:g} .. {high:g}: must be between 1 (off) and 10")
        count = len(identities.vectors)
        if count * variations.images > MAX_IMAGES:
            raise InvalidInputError(
                f"{count} identities of {variations.images} images: at most {MAX_IMAGES} images; make several plans "
                "with different seeds"
            )
        per_shard = max(shard_size // variations.images, 1)
        base, sr = self._base.bundle, self._sr.bundle
        header = PlanHeader(
            bundle=base.name,
            weights_sha256={"base": base.weights_sha256, "sr": sr.weights_sha256},
            id_vector_model=self.space.id_vector_model,
            identity_dim=self.space.identity_dim,
            l2_normalised=takes_unit_vectors(
                self._base.l2_normalised, self._base.id_vector_model, self._repository / FACES
            ),
            attribute_set=self._base.attribute_set if variations.has_attributes else None,
            seed=seed,
            source=source,
            identities=count,
            images=count * variations.images,
            shards=-(-count // per_shard),
            options=dict(options),
            image_format=image_format,
            filters=filters,
        )
        if variations.has_attributes and header.attribute_set is None:
            raise InvalidInputError(f"bundle {base.name} takes no attributes")
        file = io.BytesIO()
        write_plan(
            file,
            header,
            identities.vectors,
            identities.origins,
            lambda identity: variations.of(seed, identity, header.attribute_set),
            per_shard,
            on_identities,
        )
        return header, file.getvalue()


def describe_identities(identities: Identities) -> str:
    """The number and the closest pair, for people."""
    return f"{len(identities.vectors)} identities, the closest two {identities.closest_degrees:.1f} degrees apart"
