"""See the package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from safetensors import write

KINDS = {"float64": "F64", "float32": "F32", "float16": "F16", "uint16": "U16", "int64": "I64", "uint8": "U8"}


def save_file(
    tensor_dict: Mapping[str, np.ndarray], filename: str | Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes arrays."""
    arrays = {name: np.ascontiguousarray(array) for name, array in tensor_dict.items()}
    write(filename, {name: (KINDS[str(a.dtype)], a.shape, a.tobytes()) for name, a in arrays.items()}, metadata)
