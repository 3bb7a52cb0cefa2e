"""See the package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from safetensors import write

KINDS = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def save_file(
    tensors: Mapping[str, torch.Tensor], filename: str | Path, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes tensors."""
    there = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    written = {
        name: (KINDS[tensor.dtype], tuple(tensor.shape), tensor.flatten().view(torch.uint8).numpy().tobytes())
        for name, tensor in there.items()
    }
    write(filename, written, metadata)
