"""Open-loop load generator: each request is sent when it is due, however many are in flight.

Latency counts from that moment, not from the sending: a server that stalls gets no easier load for it, and a late
sender makes the figures worse, not better (no "coordinated omission").
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm_client import (
    AsyncClient,
    CancelledRequestError,
    ClientError,
    ConnectionFailedError,
    DeadlineExceededError,
    InvalidRequestError,
    OverloadedError,
    Retry,
)
from load.arrivals import Arrival
from load.records import Record

NO_RETRY = Retry(limit=0)
_OUTCOMES: tuple[tuple[type[ClientError], str], ...] = (
    (InvalidRequestError, "invalid"),
    (OverloadedError, "refused"),
    (ConnectionFailedError, "unreachable"),
    (DeadlineExceededError, "late"),
    (CancelledRequestError, "cancelled"),
)

Digests = Mapping[tuple[str, int], str]
"""By name of the kind and seed, the digest of a known image."""


def digest(image: NDArray[np.uint8], image_64: NDArray[np.uint8]) -> str:
    """SHA-256 of both images of an answer."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes() + np.ascontiguousarray(image_64).tobytes()).hexdigest()


class Generator:
    """Sends arrivals to one server and keeps what became of them.

    Args:
        url: `host:port` of its gRPC.
        identities: ID vectors [N, D].
        known: Digests of known images.
        retry: How the client retries; not at all by default, so that refusals can be counted.
        timeout_s: Of one request.

    Attributes:
        records: What became of each request that has ended.
        in_flight: Requests that were sent and have not ended.
    """

    def __init__(
        self,
        url: str,
        identities: NDArray[np.float32],
        known: Digests | None = None,
        *,
        retry: Retry = NO_RETRY,
        timeout_s: float = 600.0,
    ) -> None:
        self._url = url
        self._identities = identities
        self._known = dict(known or {})
        self._retry = retry
        self._timeout_s = timeout_s
        self.records: list[Record] = []
        self.in_flight = 0

    async def run(self, arrivals: Sequence[Arrival]) -> list[Record]:
        """Sends every request when it is due and waits for the last end."""
        # No request of an open loop waits for another, so the client's own slots must never run out.
        slots = len(arrivals) + 1
        async with AsyncClient(self._url, timeout_s=self._timeout_s, max_in_flight=slots, retry=self._retry) as client:
            start = time.monotonic()
            tasks = []
            for arrival in arrivals:
                await asyncio.sleep(start + arrival.at_s - time.monotonic())
                tasks.append(asyncio.create_task(self._send(client, arrival, start)))
            await asyncio.gather(*tasks)
        return self.records

    async def _send(self, client: AsyncClient, arrival: Arrival, start: float) -> None:
        sent = time.monotonic() - start
        vector = self._identities[arrival.identity]
        self.in_flight += 1
        answer = asyncio.ensure_future(client.generate(vector, arrival.seed, **arrival.kind.options))
        done, _ = await asyncio.wait({answer}, timeout=arrival.cancel_after_s)
        if not done:
            answer.cancel()
            await asyncio.wait({answer})
        # Read before anything is computed: hashing is not the server's time.
        end = time.monotonic() - start
        self.in_flight -= 1
        outcome, wrong, error = self._judge(arrival, answer)
        expected = {"invalid"} if not arrival.kind.valid else {"ok"}
        if arrival.cancel_after_s is not None:
            expected.add("cancelled")
        self.records.append(
            Record(
                kind=arrival.kind.name,
                at_s=arrival.at_s,
                sent_s=sent,
                end_s=end,
                outcome=outcome,
                expected=outcome in expected,
                wrong=wrong,
                error=error,
            )
        )

    def _judge(self, arrival: Arrival, answer: asyncio.Future[Any]) -> tuple[str, bool, str]:
        """Outcome, whether the image is wrong, and the error's text."""
        if answer.cancelled():
            return "cancelled", False, ""
        error = answer.exception()
        if error is None:
            image = answer.result()
            right = self._known.get((arrival.kind.name, arrival.seed)) if arrival.known else None
            return "ok", right not in (None, digest(np.asarray(image.image), np.asarray(image.image_64))), ""
        if not isinstance(error, ClientError):
            raise error
        for kind, outcome in _OUTCOMES:
            if isinstance(error, kind):
                return outcome, False, str(error)
        return "failed", False, f"{type(error).__name__}: {error}"


def drive(generator: Generator, arrivals: Sequence[Arrival]) -> list[Record]:
    """Runs a generator to its end in an event loop of its own."""
    return asyncio.run(generator.run(arrivals))
