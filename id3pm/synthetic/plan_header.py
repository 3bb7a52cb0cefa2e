"""What a plan says beside its rows: bundle, options, and which images are kept."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Literal

from id3pm.attributes import ATTRIBUTE_SETS
from id3pm.attributes.schema import AttributeSet
from id3pm.config import MAX_SEED, from_json, require
from id3pm.errors import ConfigError, InvalidInputError

ImageFormat = Literal["png", "jpg"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Filters:
    """Which images are kept. Cosines are compared after rounding to 4 decimals; `None` switches a filter off.

    Attributes:
        least_similarity: Least cosine of the image's ID vector and its target.
        most_other: Largest cosine of the image's ID vector and the target of any other identity of the plan.
        second: The second FR model: `dlib`, or `None`.
        least_second: Least similarity of the second model's vector of the image and the mean of the identity's other
            images. Of dlib 1 minus the Euclidean distance, so its authors' limit of 0.6 is 0.4 here.
        attempts: How many seeds are tried for each image.
        models: Files of each model, by name: sha256 or version. Other ones would decide differently.
    """

    least_similarity: float | None
    most_other: float | None
    second: Literal["dlib"] | None
    least_second: float | None
    attempts: int
    models: dict[str, str]

    def __post_init__(self) -> None:
        for name in ("least_similarity", "most_other", "least_second"):
            value = getattr(self, name)
            require(value is None or -1.0 <= value <= 1.0, f"{name}={value}: must be between -1 and 1")
        require(1 <= self.attempts <= 1000, f"attempts={self.attempts}: must be between 1 and 1000")
        require(
            self.least_second is None or self.second is not None, "least_second: needs a second model (--second dlib)"
        )

    @property
    def on(self) -> bool:
        """Whether faces are looked for at all."""
        return any(value is not None for value in (self.least_similarity, self.most_other, self.second))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanHeader:
    """What a plan says beside its rows.

    Attributes:
        schema: Version of this format.
        bundle: Name of the bundle.
        weights_sha256: Of its stages `base` and `sr`.
        id_vector_model: The FR model of the ID vectors.
        identity_dim: Their length D.
        l2_normalised: Whether the network takes vectors of norm 1 only.
        attribute_set: Of the attribute vectors, or `None`.
        seed: Of all that was drawn.
        source: Of the identities, and their smallest angle, in words.
        identities: How many.
        images: How many.
        shards: How many row groups.
        options: Sampling options of all images, by public name; guidance scale and attributes are in the rows.
        image_format: Of the picture files.
        filters: Which images are kept.
    """

    schema: int = 1
    bundle: str
    weights_sha256: dict[str, str]
    id_vector_model: str
    identity_dim: int
    l2_normalised: bool
    attribute_set: AttributeSet | None
    seed: int
    source: str
    identities: int
    images: int
    shards: int
    options: dict[str, Any]
    image_format: ImageFormat
    filters: Filters

    def __post_init__(self) -> None:
        require(self.schema == 1, f"schema={self.schema}: this version reads 1")
        for name in ("identity_dim", "identities", "images", "shards"):
            value = getattr(self, name)
            require(1 <= value <= 2**40, f"{name}={value}: must be at least 1")
        require(0 <= self.seed <= MAX_SEED, f"seed={self.seed}: must be from 0 to 2^63 - 1")
        known = self.attribute_set is None or self.attribute_set in ATTRIBUTE_SETS
        require(known, f"attribute_set={self.attribute_set!r}: is not known to this version")

    @property
    def attribute_dim(self) -> int | None:
        """Length A of the attribute vectors, or `None`."""
        return None if self.attribute_set is None else len(ATTRIBUTE_SETS[self.attribute_set])


def read_header(text: bytes) -> PlanHeader:
    """The header from its JSON.

    Raises:
        InvalidInputError: It is not valid; the message names the field.
    """
    try:
        raw = json.loads(text.decode("utf-8"))
        return from_json(PlanHeader, raw)
    except (ConfigError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"the plan's header is not valid: {error}") from error
