"""One image to be sampled by one stage, and the result."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from id3pm.config import SamplingOptions, UNetConfig
from id3pm.diffusion.guidance import null_attributes
from id3pm.diffusion.noise import check_seed
from id3pm.engines.inputs import FloatArray, input_shapes
from id3pm.errors import InvalidInputError, InvalidOptionError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SampleRequest:
    """One image of one stage. `StepScheduler.submit` checks it with `validated`.

    Attributes:
        id: Name for cancel and progress; unique among the requests in flight.
        seed: 0 .. 2^63 - 1; all noise of the image is a function of it.
        options: How to sample.
        identity: ID vector, float32 [D], as its face-recognition model gives it: never normalised here. The zero
            vector is the unconditional input of classifier-free guidance, so it means "no particular person".
        attributes: Attribute vector, float32 [A], or `None` for unspecified (the -1-vector).
        low_res: The image to upsample, float32 [3, s, s] in [-1, 1].
        deadline: `time.monotonic()` seconds after which the result is of no use, or `None`.
        priority: Class from 0 up; smaller ones go first, see `id3pm.sampling.policy`. No image depends on it.
        caller: The caller that its share of the machine is counted to; see there, too.
        valid_for: The U-Net's configuration that `validated` has checked it for, or `None`. A changed copy has
            not been checked.
    """

    id: str
    seed: int
    options: SamplingOptions
    identity: FloatArray | None = None
    attributes: FloatArray | None = None
    low_res: FloatArray | None = None
    deadline: float | None = None
    priority: int = 1
    caller: str = ""
    valid_for: UNetConfig | None = dataclasses.field(default=None, init=False)

    @property
    def guidance(self) -> np.float32:
        """The guidance scale, for a U-Net that takes it as an input."""
        return np.float32(self.options.guidance_scale)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """A finished image.

    Attributes:
        image: uint8 [S, S, 3].
        steps: Sampling steps that were made.
        evaluations: Rows that the U-Net evaluated: one per step, two where the step was guided.
        waited_s: Seconds between `submit` and the first step.
        sampled_s: Seconds between the first step and the last.
    """

    image: NDArray[np.uint8]
    steps: int
    evaluations: int
    waited_s: float
    sampled_s: float


NORM_TOLERANCE = 0.01
"""How far from 1 the L2 norm of an ID vector may be where it must be 1; rounding to float16 changes it by 0.0005."""


def validated(
    request: SampleRequest,
    config: UNetConfig,
    *,
    unit_vectors: bool = False,
    names: Mapping[str, str] = MappingProxyType({}),
) -> SampleRequest:
    """The request with its arrays copied to float32, after checking that a U-Net of this configuration can take it.

    One that has been checked for this very configuration is returned as it is, unless `unit_vectors` asks for more.

    Args:
        request: The request.
        config: Of the U-Net.
        unit_vectors: Whether the ID vector must have L2 norm 1, or be zero.
        names: What the reader of errors calls `identity`, `attributes` and `low_res`, where these are other names.

    Raises:
        InvalidInputError: A value is missing, superfluous, not finite, or of the wrong size or norm.
        InvalidOptionError: Guidance is asked of a stage that has no condition, a scale of a student that was not taught
            it, or consistency of a stage that has no small image.
    """
    if request.valid_for is config and not unit_vectors:
        return request
    require_network(request.options, config)
    shapes = {name: shape[1:] for name, shape in input_shapes(config, 1).items()}
    attributes = request.attributes
    if attributes is None and config.attribute_dim is not None:
        attributes = null_attributes(1, config.attribute_dim)[0]
    identity = _checked("identity", request.identity, shapes, names)
    if unit_vectors and identity is not None:
        _check_norm(names.get("identity", "identity"), identity)
    checked = dataclasses.replace(
        request,
        seed=check_seed(request.seed),
        identity=identity,
        attributes=_checked("attributes", attributes, shapes, names),
        low_res=_checked("low_res", request.low_res, shapes, names),
    )
    object.__setattr__(checked, "valid_for", config)  # frozen; no caller can set it
    return checked


def require_network(options: SamplingOptions, config: UNetConfig) -> None:
    """Refuses options that a U-Net of this configuration cannot honour.

    Args:
        options: How to sample.
        config: Of the U-Net.

    Raises:
        InvalidOptionError: See `validated`.
    """
    scale = options.guidance_scale
    if config.identity_dim is None and config.attribute_dim is None and scale != 1.0:
        raise InvalidOptionError(f"guidance_scale={scale}: this stage has no condition to guide; leave it at 1")
    if config.guidance_range is not None:
        low, high = config.guidance_range
        if not low <= scale <= high:
            raise InvalidOptionError(f"guidance_scale={scale}: this student was taught {low:g} .. {high:g}")
    if config.low_res_size is None and options.consistency != 0.0:
        raise InvalidOptionError(f"consistency={options.consistency}: belongs to super-resolution; leave it at 0")


def _check_norm(name: str, identity: FloatArray) -> None:
    norm = float(np.linalg.norm(identity.astype(np.float64)))
    if norm and abs(norm - 1.0) > NORM_TOLERANCE:
        raise InvalidInputError(
            f"{name} has L2 norm {norm:.6g}: must be 1 (within {NORM_TOLERANCE}), as the ID vectors that this model "
            "was trained on; divide the vector by its norm"
        )


def _checked(
    field: str, value: FloatArray | None, shapes: Mapping[str, tuple[int, ...]], names: Mapping[str, str]
) -> FloatArray | None:
    """A float32 copy of `value`, which must have this shape; `None` where the stage takes no such input."""
    name, shape = names.get(field, field), shapes.get(field)
    if shape is None:
        if value is not None:
            raise InvalidInputError(f"{name}: this model takes none")
        return None
    if value is None:
        raise InvalidInputError(f"{name}: missing; this model needs {list(shape)} numbers")
    try:
        with np.errstate(over="ignore"):  # what does not fit float32 becomes infinite and is refused below
            array = np.array(value, dtype=np.float32, order="C")
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{name}: expected numbers of shape {list(shape)}") from error
    if array.shape != shape:
        raise InvalidInputError(f"{name} has shape {list(array.shape)}; this model takes {list(shape)}")
    if not np.isfinite(array).all():
        raise InvalidInputError(f"{name} has values that are not finite (NaN or infinity)")
    array.setflags(write=False)
    return array
