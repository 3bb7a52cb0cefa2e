"""Thresholds of the parity gate, by precision."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping

from id3pm.engines.buckets import Buckets
from id3pm.engines.manifest import CPU_TARGETS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Limits of the gate.

    Attributes:
        relative_error: Largest L2 error of a row's output, relative to its L2 norm.
        psnr_db: Lowest PSNR of a final image, in dB.
        identity_cosine: Lowest cosine similarity of the ID vectors of a final 64 px image and the reference's.
        batch_invariant: Whether rows must be bit-identical in every batch, or only recorded whether they are.
    """

    relative_error: float
    psnr_db: float
    identity_cosine: float
    batch_invariant: bool


_LIMITS: Mapping[str, tuple[float, float]] = types.MappingProxyType(
    {"fp32": (1e-4, 60.0), "fp16": (1e-2, 35.0), "bf16": (1e-1, 35.0), "int8": (2e-1, 28.0)}
)
"""By precision: relative error of a forward pass, PSNR in dB of a final image."""
IDENTITY_COSINE = 0.98


def thresholds(target: str, precision: str, buckets: Buckets = "exact") -> Thresholds:
    """The published limits of a target, a precision and a way of padding."""
    relative_error, psnr_db = _LIMITS[precision]
    return Thresholds(
        relative_error=relative_error,
        psnr_db=psnr_db,
        identity_cosine=IDENTITY_COSINE,
        batch_invariant=target in CPU_TARGETS or buckets == "exact",
    )
