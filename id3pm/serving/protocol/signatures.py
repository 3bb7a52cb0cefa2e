"""What callers may send to each served model and ask of it, by name; derived from the table of `served_models.py`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from id3pm.serving.protocol import served_models
from id3pm.serving.protocol.wire import DEADLINE_IN

WIDTHS: Mapping[str, int] = {"FP32": 4, "INT32": 4, "INT64": 8, "UINT8": 1}
"""Bytes of an element by data type; each element of BYTES has its length in four bytes before it."""
VERSION = "1"
"""The one version of every model."""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor of a model.

    Attributes:
        datatype: In the words of Triton's protocol: a key of `WIDTHS`, or `BYTES`.
        shape: Sizes for one image, behind the batch dimension; -1 is any, also where the bundle decides.
    """

    datatype: str
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Signature:
    """The tensors of a model for callers: without those that models of an ensemble pass on (`DEADLINE_IN`)."""

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


def _by_name(tensors: Iterable[served_models.Tensor]) -> dict[str, Tensor]:
    return {
        tensor.name: Tensor(
            "BYTES" if tensor.dtype == "STRING" else tensor.dtype,
            tuple(size if isinstance(size, int) else -1 for size in tensor.dims),
        )
        for tensor in tensors
        if tensor.name not in DEADLINE_IN
    }


SIGNATURES: Mapping[str, Signature] = {
    name: Signature(_by_name(model.inputs), _by_name(model.outputs))
    for name, model in sorted(served_models.MODELS.items(), key=lambda entry: not entry[1].steps)
}
"""By model, the ensembles first; `control` of face_embedding is the supervisor's alone."""
