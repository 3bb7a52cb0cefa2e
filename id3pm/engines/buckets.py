"""Batch buckets: the few batch sizes for which a GPU runtime keeps kernels, buffers and a CUDA graph."""

from __future__ import annotations

from typing import Literal

Buckets = Literal["exact", "fast"]
"""`exact`: one bucket, of `max_batch` rows. All calls run the same kernels, so a row's bits do not depend on how many
others are with it. `fast`: a call runs the smallest bucket that holds it. Kernels of two buckets may add up in another
order, so a row's last bits depend on its company."""


def batch_buckets(max_batch: int, kind: Buckets = "fast") -> list[int]:
    """`max_batch` alone for `exact`; for `fast` 1, 2, 3, 4, 6, 8, 12, 16, 24, ... and `max_batch`, the last.

    With the latter a call is padded to the next bucket: at most a third of its rows then are padding, a tenth on
    average. Powers of two alone would pad twice as much; a bucket for every size would double build time and memory.
    """
    if kind == "exact":
        return [max_batch]
    sizes = {1, max_batch}
    power = 2
    while power <= max_batch:
        sizes |= {power, power * 3 // 2}
        power *= 2
    return sorted(size for size in sizes if size <= max_batch)


def bucket_of(rows: int, buckets: list[int]) -> int:
    """The smallest bucket that holds `rows` rows, 1 to the largest bucket."""
    return min(bucket for bucket in buckets if bucket >= rows)
