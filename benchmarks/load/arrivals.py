"""Arrival times: a mixture of requests as a Poisson process, a function of one seed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

FRESH_SEEDS = 1_000_000
"""Requests whose image is not known beforehand have seeds from here on, each its own; known ones have seeds below."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """One class of requests.

    Attributes:
        name: As the tables call it.
        options: Of `AsyncClient.generate`.
        share: Its weight among all kinds.
        valid: The server should make an image of it; if not, it should say `InvalidRequestError`.
    """

    name: str
    options: Mapping[str, Any]
    share: float = 1.0
    valid: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arrival:
    """One request.

    Attributes:
        at_s: Seconds after the start at which it is due, whatever became of those before it.
        kind: Its class.
        identity: Number of its ID vector.
        seed: Its seed.
        known: Whether its image is known beforehand; see `references`.
        cancel_after_s: Seconds after which its caller gives it up, or `None`.
    """

    at_s: float
    kind: Kind
    identity: int
    seed: int
    known: bool = False
    cancel_after_s: float | None = None


def poisson(
    kinds: Sequence[Kind],
    rate: float,
    count: int,
    *,
    seed: int,
    identities: int,
    known: float = 0.0,
    known_seeds: int = 1,
    cancelled: float = 0.0,
    patience_s: float = 1.0,
) -> list[Arrival]:
    """`count` requests of a Poisson process.

    Args:
        kinds: What to mix.
        rate: Requests a second.
        count: How many.
        seed: Of all that is random here. Each property has a stream of its own: to change one leaves the others.
        identities: How many ID vectors there are.
        known: Share of requests whose image is known beforehand.
        known_seeds: How many images of each kind are known; they have the seeds 0, 1, ... and that identity.
        cancelled: Share of requests that their caller gives up.
        patience_s: Mean seconds, exponentially distributed, until then.

    Raises:
        ValueError: A number breaks its rule.
    """
    if rate <= 0 or count < 1 or not 0 <= known <= 1 or not 0 <= cancelled <= 1 or patience_s <= 0:
        raise ValueError(
            f"rate={rate}, count={count}, known={known}, cancelled={cancelled}, patience_s={patience_s}: "
            "rate and patience must be positive, count at least 1, shares between 0 and 1"
        )
    gaps, classes, who, is_known, gives_up, patience = (
        np.random.Generator(np.random.Philox(key=[seed, stream])) for stream in range(6)
    )
    weights = np.array([kind.share for kind in kinds])
    times = np.cumsum(gaps.exponential(1 / rate, count))
    chosen = classes.choice(len(kinds), count, p=weights / weights.sum())
    people = who.integers(identities, size=count)
    flags, pairs = is_known.random(count) < known, is_known.integers(known_seeds, size=count)
    leaves, waits = gives_up.random(count) < cancelled, patience.exponential(patience_s, count)
    arrivals = []
    for i in range(count):
        kind = kinds[chosen[i]]
        use_known = bool(flags[i]) and kind.valid
        arrivals.append(
            Arrival(
                at_s=float(times[i]),
                kind=kind,
                identity=int(pairs[i]) % identities if use_known else int(people[i]),
                seed=int(pairs[i]) if use_known else FRESH_SEEDS + i,
                known=use_known,
                cancel_after_s=float(waits[i]) if leaves[i] else None,
            )
        )
    return arrivals


def burst(kinds: Sequence[Kind], count: int, *, seed: int, identities: int) -> list[Arrival]:
    """The same mixture, all at once."""
    arrivals = poisson(kinds, 1.0, count, seed=seed, identities=identities)
    return [dataclasses.replace(arrival, at_s=0.0) for arrival in arrivals]


def gaps_us(rate: float, count: int, seed: int) -> list[int]:
    """Microseconds between the requests of a Poisson process, scaled so that they come at exactly `rate` on average."""
    gaps = np.random.Generator(np.random.Philox(key=[seed, 0])).exponential(1.0, count)
    return [max(int(gap), 1) for gap in gaps / gaps.mean() / rate * 1e6]
