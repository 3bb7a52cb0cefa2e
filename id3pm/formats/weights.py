"""Reads safetensors files of any number format as float32, without torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from id3pm.errors import BundleError

Float32Array = NDArray[np.float32]


def _bfloat16(raw: NDArray[Any]) -> Float32Array:
    return (raw.astype(np.uint32) << 16).view(np.float32)  # the upper half of a float32


def _float8_e5m2(raw: NDArray[Any]) -> Float32Array:
    return (raw.astype(np.uint16) << 8).view(np.float16).astype(np.float32)  # the upper half of a float16


def _float8_e4m3(raw: NDArray[Any]) -> Float32Array:
    """OCP's E4M3: bias 7, subnormal numbers, no infinity; all ones is NaN."""
    code = np.arange(256)
    exponent, mantissa = (code >> 3) & 15, code & 7
    size = np.where(exponent == 0, mantissa / 8 * 2.0**-6, (1 + mantissa / 8) * 2.0 ** (exponent - 7.0))
    size[code & 127 == 127] = np.nan
    table = np.where(code < 128, size, -size).astype(np.float32)
    found: Float32Array = table[raw]
    return found


def _number(raw: NDArray[Any]) -> Float32Array:
    with np.errstate(over="ignore"):  # a float64 too large becomes infinity, which is refused by name
        return np.asarray(raw, dtype=np.float32)


FORMATS: Mapping[str, tuple[str, Callable[[NDArray[Any]], Float32Array]]] = {
    "F64": ("<f8", _number),
    "F32": ("<f4", _number),
    "F16": ("<f2", _number),
    "BF16": ("<u2", _bfloat16),
    "F8_E4M3": ("u1", _float8_e4m3),
    "F8_E5M2": ("u1", _float8_e5m2),
}
"""safetensors' name of a number format -> numpy's type of the stored bytes, and what makes float32 of them."""


def read_weights(file: Path) -> dict[str, Float32Array]:
    """All tensors of a safetensors file as float32, by name.

    Raises:
        BundleError: It is not a safetensors file, a tensor is stored in another format than `FORMATS`, or holds NaN or
            infinity.
    """
    try:
        with safe_open(file, framework="np") as opened:  # checks the header and the position of every tensor
            names = list(opened.keys())
    except OSError as error:
        raise BundleError(f"{file.name} cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise BundleError(f"{file.name} is not a readable safetensors file: {error}") from error
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    return {name: _read(file, 8 + length, name, header[name]) for name in names}


def _read(file: Path, start: int, name: str, entry: Mapping[str, Any]) -> Float32Array:
    if entry["dtype"] not in FORMATS:
        raise BundleError(f"{file.name}: {name} is stored as {entry['dtype']}: need one of {', '.join(FORMATS)}")
    dtype, convert = FORMATS[entry["dtype"]]
    begin, end = entry["data_offsets"]
    raw = np.fromfile(file, dtype, (end - begin) // np.dtype(dtype).itemsize, offset=start + begin)
    tensor = convert(raw).reshape(entry["shape"])
    if problem := not_finite({name: tensor}):
        raise BundleError(f"{file.name}: {problem}")
    return tensor


def not_finite(tensors: Mapping[str, NDArray[Any]]) -> str | None:
    """The error text for the first tensor that holds NaN or infinity, or `None` if all numbers are finite."""
    for name, tensor in tensors.items():
        count = tensor.size - int(np.isfinite(tensor).sum())
        if count:
            return (
                f"{name} holds NaN or infinity ({count} of {tensor.size} numbers): training diverged, or the file is "
                "damaged"
            )
    return None
