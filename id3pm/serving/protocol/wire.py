"""The wire: option names, Triton data types and meanings, in one table; control requests; encodings.

This module imports none of Triton's libraries. A test compares the table with every `config.pbtxt` of the model
repository.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from id3pm.config import SamplerName, SamplingOptions
from id3pm.errors import InvalidInputError
from id3pm.sampling.presets import PRESETS
from id3pm.serving.protocol.limits import MAX_TEXT

Array = npt.NDArray[Any]
Stage = Literal["base", "sr"]
STAGES: tuple[Stage, ...] = get_args(Stage)
BASE: tuple[Stage, ...] = ("base",)
SR: tuple[Stage, ...] = ("sr",)

FACES = ("largest", "only")
# Operation -> fewest and most arguments behind it. An empty request id counts as none.
CONTROL_OPS: Mapping[str, tuple[int, int]] = {
    "ping": (0, 1),
    "describe": (0, 1),
    "drain": (0, 1),
    "cancel": (1, 1),
    "progress": (1, 1),
    "watch": (2, 3),
}
_MOST_ARGUMENTS = max(most for _, most in CONTROL_OPS.values())
_SAMPLING_FIELDS = {field.name for field in dataclasses.fields(SamplingOptions)}
OWNER = "x-id3pm-owner"
"""Request parameter that only the gateway sends: the owner of the request's id. Ids of two owners are independent.
Requests without an owner (of the supervisor, or of callers of a plain `tritonserver`) share their ids, and their
control requests reach the requests of every owner."""
CALLER = "x-id3pm-caller"
"""The same: the caller that the request's share of the machine is counted to."""
RESERVED = (OWNER, CALLER)
DEADLINE_IN = ("deadline", "deadline_64")
"""Inputs by which one model of an ensemble passes the deadline to the next; see `passed_on`."""


class RequestKey(NamedTuple):
    """A request's id and its owner: see `OWNER`."""

    owner: str | None
    id: str


@dataclasses.dataclass(frozen=True)
class Option:
    """One value that a request may carry, as an input tensor or as a request parameter of the same name.

    Attributes:
        name: Name on the wire; options of the super-resolution stage begin with `sr_`.
        dtype: Data type of the input tensor, in Triton's words.
        stages: The stages that use it. As an input, `denoiser_64` takes all options, whatever stage uses them, and
            refuses bad ones: it is the first of an ensemble, and errors should come early.
        help: Meaning, range and unit.
        length: Numbers per image; -1 is a length that the model checks.
    """

    name: str
    dtype: Literal["STRING", "INT32", "INT64", "FP32"]
    stages: tuple[Stage, ...]
    help: str
    length: int = 1

    @property
    def field(self) -> str | None:
        """The field of `SamplingOptions` that it sets, or `None` where it is not a sampling option."""
        field = self.name.removeprefix("sr_")
        return field if field in _SAMPLING_FIELDS else None


OPTIONS: tuple[Option, ...] = (
    Option(
        "seed",
        "INT64",
        STAGES,
        "0 .. 2^63 - 1: the image is a function of it; left out, a random one (see receipt)",
    ),
    Option("priority", "INT32", STAGES, "class of a request: 0 (first) .. 9 (last); default 1"),
    Option("id_vector_model", "STRING", BASE, "FR model of the ID vector: the stage refuses another than its own"),
    Option("preset", "STRING", STAGES, f"{', '.join(PRESETS)}: all sampling options at once; others beside it win"),
    Option(
        "sampler",
        "STRING",
        BASE,
        f"one of {', '.join(get_args(SamplerName))}; a student takes student alone, others the rest",
    ),
    Option(
        "steps",
        "INT32",
        BASE,
        "sampling steps of the 64 px stage, 1 .. 1000; a single one gives noise, unless the bundle is a student",
    ),
    Option("spacing", "STRING", BASE, "timesteps: uniform, or uniform in logsnr"),
    Option("guidance_scale", "FP32", BASE, "classifier-free guidance, 1 .. 10; 1 is off"),
    Option("guidance_low", "INT32", BASE, "lowest training timestep with guidance (inclusive)"),
    Option("guidance_high", "INT32", BASE, "highest training timestep with guidance (inclusive)"),
    Option("dynamic_threshold", "FP32", BASE, "percentile of dynamic thresholding in (0, 1]; 0 clips to [-1, 1]"),
    Option("eta", "FP32", BASE, "noise of ddim, 0 .. 1"),
    Option("attributes", "FP32", BASE, "attribute vector, where the bundle has attributes; -1 is unspecified", -1),
    Option(
        "attribute_values",
        "STRING",
        BASE,
        "the attributes by name instead, as JSON or pairs: yaw=-20,smile=0.8; the rest as `describe` says",
    ),
    Option("sr_sampler", "STRING", SR, "as sampler, for 64 -> 256 px"),
    Option("sr_steps", "INT32", SR, "as steps, for 64 -> 256 px"),
    Option("sr_spacing", "STRING", SR, "as spacing, for 64 -> 256 px"),
    Option("sr_eta", "FP32", SR, "as eta, for 64 -> 256 px"),
    Option("sr_consistency", "FP32", SR, "0 .. 1: how closely the 256 px image, reduced, must be the 64 px image"),
)
OPTIONS_BY_NAME: Mapping[str, Option] = {option.name: option for option in OPTIONS}
OPTION_NAMES: Mapping[Stage, Mapping[str, str]] = {
    stage: {option.field: option.name for option in OPTIONS if option.field is not None and stage in option.stages}
    for stage in STAGES
}
"""What each stage's options are called on the wire, by field of `SamplingOptions`."""


@dataclasses.dataclass(frozen=True)
class Control:
    """A control request.

    Attributes:
        op: One of `CONTROL_OPS`.
        request_id: The request concerned; empty for `ping`, `describe` and `drain`.
        after_step: `watch` waits for a step after this one.
        preview: `watch` wants pictures.
    """

    op: str
    request_id: str = ""
    after_step: int = -1
    preview: bool = True


def parse_control(control: Array) -> Control:
    """Reads a control tensor: strings [1, K], the operation, a request id, and the arguments of `watch`.

    Raises:
        InvalidInputError: Another shape, an unknown operation, or arguments that it does not take.
    """
    if control.ndim != 2 or len(control) != 1 or not control.size:
        raise InvalidInputError(f"control has shape {list(control.shape)}: send one row [operation, request id, ...]")
    if control.size > 1 + _MOST_ARGUMENTS:
        raise InvalidInputError(f"control has {control.size} strings: at most {1 + _MOST_ARGUMENTS} are allowed")
    op, *arguments = (text("control", value) for value in control.reshape(-1))
    if op not in CONTROL_OPS:
        raise InvalidInputError(f"control operation {op[:64]!r}: choose one of {', '.join(CONTROL_OPS)}")
    least, most = CONTROL_OPS[op]
    if least and not (arguments and arguments[0]):
        raise InvalidInputError(f"control {op} needs the request id as its second string")
    if not least <= len(arguments) <= most:
        raise InvalidInputError(f"control {op} takes {least} to {most} strings behind it, not {len(arguments)}")
    if op != "watch":
        return Control(op, "".join(arguments))
    after = arguments[1]
    if after != "-1" and not (after.isascii() and after.isdecimal() and len(after) <= 9):
        raise InvalidInputError(f"control watch: after step {arguments[1][:64]!r}: send a whole number from -1 up")
    if arguments[2:] not in ([], ["0"], ["1"]):
        raise InvalidInputError(f"control watch: preview {arguments[2][:64]!r}: send 1 or 0")
    return Control(op, arguments[0], int(arguments[1]), arguments[2:] != ["0"])


def parse_faces(rows: int, face: Array | None) -> list[str]:
    """The option `face` of each row: `largest` (default) or `only`.

    Raises:
        InvalidInputError: Another value.
    """
    if face is None:
        return [FACES[0]] * rows
    words = [text("face", value) for value in face.reshape(-1)]
    for word in words:
        if word not in FACES:
            raise InvalidInputError(f"face={word[:64]!r}: choose one of {', '.join(FACES)}")
    return words


def passed_on(deadline: float | None, rows: int) -> Array:
    """A deadline for the next model of an ensemble, INT64 [rows, 1].

    Triton gives each model of an ensemble the request's whole time limit, as if nothing had been spent of it before.

    Args:
        deadline: `time.monotonic()` seconds, a clock that the processes of one machine share; `None` is sent as 0.
        rows: Triton's batch dimension.
    """
    return np.full((rows, 1), 0 if deadline is None else max(1, round(deadline * 1e9)), dtype=np.int64)


def passed_deadline(tensor: Array) -> float | None:
    """Reads the tensor of `passed_on`: seconds, or `None`."""
    said = tensor[tensor > 0]
    return float(said.min()) / 1e9 if said.size else None


def strings(values: Sequence[str | bytes]) -> Array:
    """A string tensor [N, 1] as Triton wants it: an object array of bytes."""
    encoded = [value.encode() if isinstance(value, str) else value for value in values]
    return np.array(encoded, dtype=np.object_).reshape(-1, 1)


def text(name: str, value: str | bytes, most: int = MAX_TEXT) -> str:
    """The text of one element of a string tensor.

    Args:
        name: Of the tensor.
        value: The element.
        most: Limit in bytes, checked first.

    Raises:
        InvalidInputError: It is longer, or not UTF-8.
    """
    if len(value) > most:
        raise InvalidInputError(f"{name} has a text of {len(value)} bytes: at most {most} are allowed")
    try:
        return value.decode() if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError:
        raise InvalidInputError(f"{name}: the text is not UTF-8") from None


def shortest_float(value: float | np.floating[Any]) -> float:
    """The shortest decimal that is the same float32: 0.99 is 0.99 again after travelling as FP32.

    Without this a request over the wire (0.9900000095) would differ in the last bits from one made in process.
    """
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which no option allows
        return float(str(np.float32(value)))
