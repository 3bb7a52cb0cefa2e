"""How equal an engine must be to the fp32 PyTorch model before it is installed."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What the gate accepts.

    Attributes:
        relative_error: Largest L2 error of a row's output, relative to its L2 norm.
        psnr_db: Lowest PSNR of a final image, in dB.
        batch_invariant: Whether rows must be bit-identical in every batch, or it is merely recorded if they are.
    """

    relative_error: float
    psnr_db: float
    batch_invariant: bool


def thresholds(target: str, precision: str) -> Thresholds:
    """The published limits of a target and precision."""
    assert precision == "fp32", f"no limits are published for {precision}"
    return Thresholds(relative_error=1e-4, psnr_db=60.0, batch_invariant=target == "onnx-cpu")
