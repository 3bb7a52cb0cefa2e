"""The machine's measured peak: products of two matrices of 2048 x 2048 in every precision that PyTorch multiplies.

By its matrix product and by a 1 x 1 convolution, which is the same product by another library (oneDNN): on some
processors the one is several times faster, on some the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

SIZE = 2048
FLOPS = 2 * SIZE**3
PROBE = 512  # a product of this size tells whether a precision has a kernel for this processor
TOO_SLOW_S = 2.0  # a product that would take longer has none: fp16 without the instructions for it
PRODUCTS = 5  # the fastest counts: a peak, so interruptions do not belong to it
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.int8}


class Peak:
    """A contender that multiplies matrices."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        whole = torch.randint(-8, 8, (2, SIZE, SIZE), generator=generator)
        self._factors = {name: whole.to(dtype) for name, dtype in DTYPES.items()}

    def sample(self) -> dict[str, float]:
        """Operations per second by precision; one for which PyTorch has no kernel here is left out."""
        return {name: FLOPS / seconds for name in DTYPES if (seconds := self._seconds(name)) is not None}

    def _seconds(self, name: str) -> float | None:
        ways = (torch._int_mm,) if name == "int8" else (torch.mm, _by_convolution)  # int8 has no public product
        return min((found for way in ways if (found := self._fastest(name, way)) is not None), default=None)

    def _fastest(self, name: str, multiply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> float | None:
        a, b = self._factors[name]

        def timed(size: int) -> float:
            factors = a[:size, :size].contiguous(), b[:size, :size].contiguous()
            start = time.perf_counter()
            multiply(*factors)
            return time.perf_counter() - start

        try:
            if min(timed(PROBE), timed(PROBE)) * (SIZE / PROBE) ** 3 > TOO_SLOW_S:
                return None
            return min(timed(SIZE) for _ in range(PRODUCTS))
        except (NotImplementedError, RuntimeError):
            return None


def _by_convolution(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The product of both: the columns of b are pixels, its rows their channels."""
    return torch.nn.functional.conv2d(b[None, :, :, None], a[:, :, None, None])[0, :, :, 0]
