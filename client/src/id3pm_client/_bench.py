"""`id3pm-client bench`: throughput and latency in a closed loop."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import itertools
import math
import time
from typing import Any

import numpy as np

from id3pm_client._aio import AsyncClient
from id3pm_client._bar import Bar
from id3pm_client._base import CANCEL_TIMEOUT_S
from id3pm_client._errors import (
    AccessDeniedError,
    ClientError,
    ClosedClientError,
    InvalidRequestError,
    NotServedError,
)
from id3pm_client._transport import GRACE_S
from id3pm_client._types import Array

# After an error a slot of the loop pauses, so that a server that is down is not flooded.
_PAUSE_S = 0.2


@dataclasses.dataclass(frozen=True)
class Result:
    """Results of a benchmark.

    Attributes:
        images: Images that arrived.
        errors: Name of the error's class to how often it came; retries that helped do not count.
        elapsed_s: Time from the first sending to the last answer.
        images_per_s: images / elapsed_s.
        latency_mean_s: Mean time from sending a request to its answer, retries included; null without images.
        latency_median_s: The median.
        latency_p95_s: The smallest time that 95 % of the requests did not exceed.
        latency_max_s: The longest.
    """

    images: int
    errors: dict[str, int]
    elapsed_s: float
    images_per_s: float
    latency_mean_s: float | None
    latency_median_s: float | None
    latency_p95_s: float | None
    latency_max_s: float | None

    def text(self) -> str:
        """For people."""
        lines = [f"{self.images} images in {self.elapsed_s:.2f} s: {self.images_per_s:.3g} images/s"]
        if self.latency_median_s is not None:
            lines.append(
                f"latency: median {self.latency_median_s:.3f} s, p95 {self.latency_p95_s:.3f} s, "
                f"mean {self.latency_mean_s:.3f} s, max {self.latency_max_s:.3f} s"
            )
        lines.append(f"errors: {', '.join(f'{count} {name}' for name, count in self.errors.items()) or 'none'}")
        return "\n".join(lines)


async def bench(
    client: AsyncClient,
    vectors: Array,
    *,
    concurrency: int,
    images: int | None,
    seconds: float | None,
    first_seed: int,
    options: dict[str, Any],
) -> Result:
    """Keeps `concurrency` requests in flight; all are different, so that no cache helps.

    Args:
        client: Must allow that many in flight.
        vectors: ID vectors `[N, D]`, used in turn.
        concurrency: Requests in flight.
        images: Ends after so many, or `None`.
        seconds: Starts no new request after so many seconds, or `None`; what is in flight then still counts.
        first_seed: Seeds count up from here.
        options: Sampling options of every image.

    Raises:
        InvalidRequestError: Also `AccessDeniedError`, `NotServedError` and `ClosedClientError`: every request would
            fail in this way.
    """
    latencies: list[float] = []
    errors: collections.Counter[str] = collections.Counter()
    numbers = itertools.count() if images is None else iter(range(images))
    started = time.monotonic()
    end = math.inf if seconds is None else started + seconds
    bar = Bar(images, "images") if images is not None else Bar(math.ceil(seconds or 0), "seconds")

    async def place() -> None:
        for number in numbers:
            try:
                image = await client.generate(vectors[number % len(vectors)], first_seed + number, **options)
                latencies.append(image.seconds)
            except (InvalidRequestError, AccessDeniedError, NotServedError, ClosedClientError):
                raise
            except ClientError as error:
                errors[type(error).__name__] += 1
                await asyncio.sleep(_PAUSE_S)
            now = time.monotonic()
            bar.update(len(latencies) + errors.total() if images is not None else int(min(now, end) - started))
            if now >= end:
                return

    places = [asyncio.create_task(place()) for _ in range(concurrency)]
    try:
        await asyncio.gather(*places)
    finally:
        bar.close()
        for task in places:
            task.cancel()
        await asyncio.wait(places, timeout=CANCEL_TIMEOUT_S + GRACE_S)
    return _result(latencies, dict(errors), time.monotonic() - started)


def _result(latencies: list[float], errors: dict[str, int], elapsed_s: float) -> Result:
    ordered = sorted(latencies)
    return Result(
        images=len(ordered),
        errors=errors,
        elapsed_s=elapsed_s,
        images_per_s=len(ordered) / elapsed_s,
        latency_mean_s=float(np.mean(ordered)) if ordered else None,
        latency_median_s=float(np.median(ordered)) if ordered else None,
        latency_p95_s=ordered[math.ceil(0.95 * len(ordered)) - 1] if ordered else None,
        latency_max_s=ordered[-1] if ordered else None,
    )
