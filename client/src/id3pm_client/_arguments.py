"""Arguments of calls, as checked numpy arrays.

Only type, shape and finiteness are checked here. The server checks ranges, and its message is passed on.
"""

from __future__ import annotations

import difflib
import json
import numbers
import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from id3pm_client._contract import DTYPES, OPTIONS
from id3pm_client._errors import InvalidRequestError, shown
from id3pm_client._photos import Photo, photo_file
from id3pm_client._seeds import integer
from id3pm_client._tensors import plain
from id3pm_client._types import Array

Float32 = npt.NDArray[np.float32]
LONGEST_TIMEOUT_S = 86_400.0
# Names in other libraries and papers -> arguments of this one.
OTHER_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "num_inference_steps": "steps",
        "num_steps": "steps",
        "ddim_steps": "steps",
        "timestep_respacing": "steps",
        "guidance": "guidance_scale",
        "cfg": "guidance_scale",
        "cfg_scale": "guidance_scale",
        "scale": "guidance_scale",
        "scheduler": "sampler",
        "generator": "seed",
        "seeds": "seed",
        "attribute": "attributes",
        "timeout": "timeout_s",
        "num_images_per_prompt": "seed",
    }
)
_ARGUMENTS = ("seed", "timeout_s", "with_64", "on_image", "on_face", "progress", "face", "preview_every")


def as_vectors(name: str, value: object) -> Float32:
    """`value` as float32 `[D]` or `[N, D]` with finite elements.

    Raises:
        InvalidRequestError: Not numbers, another rank, no element per row, or an element is not finite in float32.
    """
    if isinstance(value, (str, bytes, bytearray, os.PathLike, Image.Image)) or hasattr(value, "read"):
        advice = "a photograph goes to generate_from_photo, stream_from_photo or embed" if name == "embedding" else ""
        raise InvalidRequestError(
            f"{name} is of type {type(value).__name__}: pass numbers, as np.load gives them; {advice}".rstrip("; ")
        )
    try:
        array = np.asarray(plain(name, value))
    except (ValueError, TypeError, OverflowError) as error:  # numpy raises it for rows of different lengths
        raise InvalidRequestError(f"{name} is not a rectangular array: {error}") from None
    if name == "embedding" and array.dtype == np.uint8 and array.ndim == 3:
        raise InvalidRequestError(
            f"{name} is a uint8 array of shape {array.shape}: a photograph goes to generate_from_photo"
        )
    if array.dtype.kind not in "fiu":
        raise InvalidRequestError(f"{name} has dtype {array.dtype}: pass real numbers")
    if array.ndim not in (1, 2):
        raise InvalidRequestError(f"{name} has shape {array.shape}: pass one vector [D] or several [N, D]")
    if array.shape[-1] == 0:
        raise InvalidRequestError(f"{name} has shape {array.shape}: a vector needs at least one element")
    with np.errstate(over="ignore"):  # overflow becomes infinite and is reported below
        vectors: Float32 = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(vectors).all():
        position = tuple(int(i) for i in np.argwhere(~np.isfinite(vectors))[0])
        raise InvalidRequestError(
            f"{name}[{', '.join(map(str, position))}] is {array[position]}: every element must be finite in float32"
        )
    return vectors


def option_tensor(name: str, value: object) -> Array:
    """A scalar option as its `[1, 1]` tensor.

    Raises:
        InvalidRequestError: `value` has the wrong type, is not finite, or does not fit the data type.
    """
    datatype = OPTIONS[name].datatype
    if datatype == "BYTES":
        if not isinstance(value, str):
            raise InvalidRequestError(f"{name}={shown(value)}: must be a string, not {type(value).__name__}")
        return text_tensor(as_text(name, value))
    if datatype == "INT32":
        number: float = integer(name, value)
        limits = np.iinfo(np.int32)
        if not limits.min <= number <= limits.max:
            raise InvalidRequestError(f"{name}={shown(number)}: must fit 32 bits")
    else:
        if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
            raise InvalidRequestError(f"{name}={shown(value)}: must be a number, not {type(value).__name__}")
        limit = float(np.finfo(np.float32).max)
        if not -limit <= value <= limit:  # type: ignore[operator]
            raise InvalidRequestError(f"{name}={shown(value)}: must be finite in float32")
        number = float(value)
    return np.array([[number]], dtype=DTYPES[datatype])


def option_tensors(options: Mapping[str, object]) -> tuple[dict[str, Array], dict[str, Array]]:
    """The options that all images share, as tensors `[1, 1]`, and those that each may have its own of, `[1 or N, ...]`.

    Raises:
        InvalidRequestError: A value breaks a rule.
        TypeError: Unknown option.
    """
    if unknown := sorted(set(options) - set(OPTIONS)):
        meant = did_you_mean(unknown[0])
        raise TypeError(f"unexpected keyword argument {unknown[0]!r}{meant}; the options are {', '.join(OPTIONS)}")
    given = {name: value for name, value in options.items() if value is not None}
    attributes = given.pop("attributes", None)
    rows = {} if attributes is None else _attribute_rows(attributes)
    return {name: option_tensor(name, value) for name, value in given.items()}, rows


def did_you_mean(name: str) -> str:
    """A `did you mean` hint for an unknown argument's name, or empty."""
    known = name.lower().replace("-", "_")
    close = difflib.get_close_matches(known, [*OPTIONS, *_ARGUMENTS], n=1, cutoff=0.75)
    meant = OTHER_NAMES.get(known) or (close[0] if close else None)
    return "" if meant is None else f": did you mean {meant}?"


def _attribute_rows(attributes: object) -> dict[str, Array]:
    """Attributes by the name of their tensor: vectors as numbers, names with values as JSON."""
    several = isinstance(attributes, Sequence) and len(attributes) > 0 and isinstance(attributes[0], Mapping)
    if not several and not isinstance(attributes, Mapping):
        return {"attributes": np.atleast_2d(as_vectors("attributes", attributes))}
    values = attributes if several else [attributes]
    texts = [_attribute_text(value) for value in cast(Sequence[object], values)]
    return {"attribute_values": np.array([[text] for text in texts], dtype=np.object_)}


def _attribute_text(values: object) -> bytes:
    if not isinstance(values, Mapping):
        raise InvalidRequestError(f"attributes: a {type(values).__name__} among names with values: pass dicts alone")
    plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
    for name, value in plain.items():
        if not isinstance(value, (int, float, str, Mapping, type(None))):
            raise InvalidRequestError(f"attributes[{name!r}]={value!r:.40}: pass a number or a word")
    try:
        return json.dumps(plain, allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(f"attributes={str(values)[:80]}: {error}") from None


def photo_tensors(photo: Photo, face: str) -> dict[str, Array]:
    """The inputs of the models that take a photograph.

    Raises:
        InvalidRequestError: Not a photograph, or `face` is not text.
        OSError: The file cannot be read.
    """
    if not isinstance(face, str):
        raise InvalidRequestError(f"face={shown(face)}: must be a string, not {type(face).__name__}")
    return {"photo": text_tensor(photo_file(photo)), "face": text_tensor(as_text("face", face))}


def as_text(name: str, value: str) -> str:
    """Text that UTF-8 can write.

    Raises:
        InvalidRequestError: It has half of a surrogate pair in it.
    """
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequestError(f"{name}={ascii(value[:64])}: this text is not valid Unicode") from None
    return value


def text_tensor(*texts: str | bytes) -> npt.NDArray[np.object_]:
    """Strings as one row `[1, n]` of a BYTES tensor."""
    row = [text.encode() if isinstance(text, str) else text for text in texts]
    return np.array([row], dtype=np.object_)


def as_timeout(name: str, value: object) -> float:
    """A time limit in seconds.

    Raises:
        InvalidRequestError: Not a number in (0, `LONGEST_TIMEOUT_S`].
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 < value <= LONGEST_TIMEOUT_S:  # type: ignore[operator]
        raise InvalidRequestError(
            f"{name}={shown(value)}: must be a number of seconds above 0 and up to {LONGEST_TIMEOUT_S:.0f} (one day)"
        )
    return float(value)


def as_count(name: str, value: object, least: int) -> int:
    """A whole number of at least `least`.

    Raises:
        InvalidRequestError: Something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidRequestError(f"{name}={shown(value)}: must be an integer of at least {least}")
    return value


def broadcast_length(lengths: dict[str, int]) -> int:
    """Number of images for arguments of these lengths: equal lengths, or 1 if others are longer.

    Raises:
        InvalidRequestError: Two lengths differ and neither is 1; the message names both.
    """
    name, length = next(iter(lengths.items()))
    for other, size in lengths.items():
        if length == 1:
            name, length = other, size
        elif size not in (1, length):
            raise InvalidRequestError(
                f"{name} has {length} rows and {other} has {size}: they must have the same length, or one of them 1"
            )
    return length
