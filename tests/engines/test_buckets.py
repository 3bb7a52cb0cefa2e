from __future__ import annotations

import pytest

from id3pm.engines.buckets import batch_buckets, bucket_of


@pytest.mark.parametrize("max_batch", [1, 2, 3, 4, 5, 7, 16, 33, 1024])
def test_every_batch_has_a_bucket_that_is_at_most_half_as_large_again(max_batch: int) -> None:
    buckets = batch_buckets(max_batch)
    assert buckets == sorted(set(buckets)) and buckets[-1] == max_batch
    for rows in range(1, max_batch + 1):
        bucket = bucket_of(rows, buckets)
        assert rows <= bucket <= max(rows, rows * 3 / 2)
        assert not any(rows <= other < bucket for other in buckets)


def test_the_buckets_of_the_default_batch() -> None:
    assert batch_buckets(16) == [1, 2, 3, 4, 6, 8, 12, 16]


def test_exact_buckets_are_one() -> None:
    assert batch_buckets(16, "exact") == [16]
