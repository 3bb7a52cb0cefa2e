"""The machine's measured peak: products of two matrices of 2048 x 2048 in every precision that PyTorch multiplies."""

from __future__ import annotations

import time

import torch

SIZE = 2048
FLOPS = 2 * SIZE**3
PRODUCTS = 5  # the fastest counts: a peak, so interruptions do not belong to it
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.int8}


class Peak:
    """A contender that multiplies matrices."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        whole = torch.randint(-8, 8, (2, SIZE, SIZE), generator=generator)
        self._factors = {name: whole.to(dtype) for name, dtype in DTYPES.items()}

    def sample(self) -> dict[str, float]:
        """Operations per second by precision; one that this build of PyTorch cannot multiply is left out."""
        return {name: FLOPS / seconds for name in DTYPES if (seconds := self._seconds(name)) is not None}

    def _seconds(self, name: str) -> float | None:
        a, b = self._factors[name]
        multiply = torch._int_mm if name == "int8" else torch.mm  # PyTorch has no public product of int8 matrices
        times = []
        for _ in range(PRODUCTS):
            start = time.perf_counter()
            try:
                multiply(a, b)
            except (NotImplementedError, RuntimeError):
                return None
            times.append(time.perf_counter() - start)
        return min(times)
