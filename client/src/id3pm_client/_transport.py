"""The transport interface of the clients; gRPC implements it, and tests bring another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

from id3pm_client._errors import ClientError
from id3pm_client._request import Call
from id3pm_client._types import Tensors

Outcome: TypeAlias = Tensors | ClientError
GRACE_S: Final = 1.0
"""Seconds beyond a call's own limit that a client waits for the outcome. A transport that stays silent for longer is
broken: its threads or its event loop have ended."""
SETTLE_S: Final = 0.5
"""Seconds that a call gets to end by itself, when its request has been answered or cancelled at the server, or is late,
before it is given up: a Triton before 25.04 may die of a call that is given up while its answer is sent."""


class SyncTransport(Protocol):
    """What `Client` needs from a wire."""

    def submit(self, call: Call, timeout_s: float, on_done: Callable[[Outcome], None]) -> Callable[[], None]:
        """Sends `call` without waiting; returns a function that gives it up.

        `on_done` is called exactly once, from any thread: with the output tensors or a typed error, at the latest after
        `timeout_s + SETTLE_S` seconds (`DeadlineExceededError`) or when the call is given up (`CancelledRequestError`).
        Where the transport is closed, before the call or under it, with `ClosedClientError`.
        """
        ...

    def server_metadata(self, timeout_s: float) -> tuple[str, str]:
        """Name and version of the server."""
        ...

    def is_ready(self, model: str | None, timeout_s: float) -> bool:
        """Whether the server, or one model of it, takes requests."""
        ...

    def close(self) -> None:
        """Frees the connection."""
        ...


class AsyncTransport(Protocol):
    """What `AsyncClient` needs from a wire.

    A client whose event loop was closed may go on in another one: the transport connects again there.
    """

    async def infer(self, call: Call, timeout_s: float) -> Tensors:
        """Sends `call` and waits for the output tensors.

        Raises:
            ClientError: The request failed; it is `DeadlineExceededError` after `timeout_s + SETTLE_S`, and
                `ClosedClientError` if the transport had been closed.
            asyncio.CancelledError: The waiting task was cancelled, and the call with it; or the transport was closed
                meanwhile, as `grpc.aio` tells it.
        """
        ...

    async def server_metadata(self, timeout_s: float) -> tuple[str, str]:
        """Name and version of the server."""
        ...

    async def is_ready(self, model: str | None, timeout_s: float) -> bool:
        """Whether the server, or one model of it, takes requests."""
        ...

    async def close(self) -> None:
        """Frees the connection."""
        ...
