"""Shared by both clients: settings, requests and their attempts. No I/O."""

from __future__ import annotations

import abc
import dataclasses
import logging
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from id3pm_client._arguments import as_count, as_timeout
from id3pm_client._calls import cancel_calls, embedding_call, first_stage_call, image_calls, photo_calls
from id3pm_client._connection import DEFAULT_URL, DNS, Connection, Security, as_urls
from id3pm_client._discovery import Discovery
from id3pm_client._errors import (
    CancelledRequestError,
    ClientError,
    ClosedClientError,
    InvalidRequestError,
    UnavailableError,
)
from id3pm_client._generation import Generation
from id3pm_client._photos import Photo
from id3pm_client._request import Call, ClientRequest, Retry, RetryBudget
from id3pm_client._server_pool import Server, ServerPool
from id3pm_client._stream import Streaming
from id3pm_client._transport import Outcome

logger = logging.getLogger("id3pm_client")
# Control calls are answered within milliseconds by a healthy server.
CONTROL_TIMEOUT_S = 5.0
# The same for `cancel`, in addition to the time limit of the failed request.
CANCEL_TIMEOUT_S = 1.0
NO_OUTCOME = "the transport gave no outcome within its time limit"
# Seconds without a message while a server that has never answered is waited for.
WARN_AFTER_S = 1.0
CLOSED_UNDER = "this client was closed before the answer came"

TransportT = TypeVar("TransportT")
Seeds: TypeAlias = Sequence[int] | npt.NDArray[np.integer[Any]]


@dataclasses.dataclass(frozen=True)
class ServerInfo:
    """Name, version and readiness of a server.

    Attributes:
        name: Name of the server, such as `triton`.
        version: Its version.
        ready: Whether it takes requests.
        models: Readiness of each model that this client uses.
    """

    name: str
    version: str
    ready: bool
    models: Mapping[str, bool]


class Wakeable(Protocol):
    """A call that waits, and looks around when it is woken."""

    def wake(self) -> None:
        """Ends its wait."""
        ...


class BaseClient(abc.ABC, Generic[TransportT]):
    """Settings of a client, and everything about requests and answers that needs no I/O."""

    def __init__(
        self,
        url: str | Sequence[str] = DEFAULT_URL,
        *,
        timeout_s: float = 300.0,
        max_in_flight: int = 16,
        retry: Retry | None = None,
        ssl: bool = False,
        root_certificates: str | os.PathLike[str] | None = None,
        client_certificate: str | os.PathLike[str] | None = None,
        client_key: str | os.PathLike[str] | None = None,
        headers: Mapping[str, str] | None = None,
        token: str | None = None,
        transport: TransportT | Sequence[TransportT] | None = None,
    ) -> None:
        """Prepares a client; the connections are made with the first requests.

        Args:
            url: `host:port` of the server's gRPC endpoint; or several, of servers with the same engines: each request
                goes to the one with the fewest of this client's requests in flight, and moves on where that one fails.
                `dns:///host:port` stands for all addresses of a name, such as that of a headless service, and is
                looked up again and again.
            timeout_s: Seconds that one request may take from its first sending, retries included.
            max_in_flight: How many requests this client keeps on the way at once, over all servers; streams come on
                top.
            retry: How often and when to send again what an unavailable server refused; `Retry()` by default.
            ssl: Encrypt the connection.
            root_certificates: PEM file with the certificates to trust, or `None` for the system's. Needs `ssl`.
            client_certificate: PEM file with this client's certificate chain, for servers that want one. Needs `ssl`.
            client_key: PEM file with the private key of `client_certificate`.
            headers: Sent with every request. For a server restricted with
                `--grpc-restricted-protocol=inference:KEY=VALUE`, `{"triton-grpc-protocol-KEY": VALUE}`.
            token: Sent with every request as `authorization: Bearer TOKEN`. Needs `ssl`, or a server on this machine.
            transport: Stands in for gRPC, one per url; for tests and other wires.

        Raises:
            InvalidRequestError: A setting breaks a rule.
            OSError: The certificates cannot be read.
        """
        self.timeout_s = as_timeout("timeout_s", timeout_s)
        self.max_in_flight = as_count("max_in_flight", max_in_flight, 1)
        security = Security(
            ssl=ssl,
            root_certificates=root_certificates,
            client_certificate=client_certificate,
            client_key=client_key,
            headers=dict(headers or {}),
            token=token,
        )
        urls = as_urls(url)
        connections = [Connection(each.removeprefix(DNS), security) for each in urls]
        self._retry = Retry() if retry is None else retry
        self._budget = RetryBudget(self._retry.budget)
        if transport is None:
            transport = [self._open(connection) for connection in connections]
        transports: Sequence[TransportT] = transport if isinstance(transport, (list, tuple)) else [transport]  # type: ignore[list-item]
        self._server_pool = ServerPool([connection.url for connection in connections], transports)
        self._security = security
        self._fixed = [each for each in urls if not each.startswith(DNS)]
        self._discovery = Discovery([each.removeprefix(DNS) for each in urls if each.startswith(DNS)], self._discovered)
        self._closed = False
        self._waiting: ClientError | None = None  # what the latest attempt failed with, until an answer comes
        self._warned = False  # whether the log says that a server has been waited for
        self._in_flight: set[ClientRequest[TransportT]] = set()  # of all calls of this client that have not ended
        self._waiting_calls: set[Wakeable] = set()  # are woken by the close
        self._prepare()

    @property
    def urls(self) -> tuple[str, ...]:
        """The servers of this client, `host:port` each."""
        return tuple(server.url for server in self._server_pool.servers)

    @abc.abstractmethod
    def _open(self, connection: Connection) -> TransportT:
        """The transport to a server, not yet connected."""

    @abc.abstractmethod
    def _prepare(self) -> None:
        """Sets up the parts of this kind of client."""

    def _begin(self) -> None:
        """Before a call does anything.

        Raises:
            ClosedClientError: This client has been closed.
        """
        self._check_open()

    def _discovered(self, found: Mapping[str, Sequence[str]]) -> None:
        """Names have been looked up; called in a thread of its own."""
        wanted = dict.fromkeys(self._fixed, "")
        for name in self._discovery.names:
            wanted |= dict.fromkeys(found.get(name, [name]), name)
        if not self._closed:
            self._server_pool.update(wanted, self._opened)

    def _opened(self, url: str, name: str) -> TransportT | None:
        try:
            return self._open(Connection(url, self._security, name))
        except InvalidRequestError as error:
            logger.warning("%s has the address %s, which is not used: %s", name, url, error)
            return None

    def _check_open(self, request: ClientRequest[TransportT] | None = None) -> None:
        """Called before a request is sent.

        Args:
            request: The request; the error names it if an attempt has been sent before.

        Raises:
            ClosedClientError: This client has been closed.
        """
        if self._closed:
            error = ClosedClientError("this client has been closed: make a new one")
            raise error if request is None or request.server is None else request.named(error)

    def _mark_closed(self) -> list[tuple[Server[TransportT], Call]]:
        """Marks the client as closed; returns the cancels for all requests in flight, the last calls to send."""
        first = not self._closed
        self._closed = True
        for waiting in self._waiting_calls.copy():
            waiting.wake()
        return cancel_calls(tuple(self._in_flight.copy())) if first else []

    def _start_attempt(
        self, request: ClientRequest[TransportT], prefer: Server[TransportT] | None = None
    ) -> tuple[Server[TransportT], float]:
        """Begins the next attempt of a request.

        Args:
            request: What will be sent.
            prefer: The server that knows the request, if any.

        Returns:
            The server, and the seconds that the attempt may take.

        Raises:
            ClosedClientError: This client has been closed.
        """
        self._in_flight.add(request)
        self._check_open(request)
        self._discovery.begin()
        now = time.monotonic()
        server = self._server_pool.take(now, avoid=request.server, prefer=prefer)
        return server, request.start_attempt(server, now)

    def _generation(
        self, embedding: object, seed: object, with_64: bool, timeout_s: float | None, options: Mapping[str, object]
    ) -> Generation[TransportT]:
        """The requests for `generate`: one per image."""
        calls, seeds, single = image_calls(embedding, seed, with_64, options)
        return Generation(self._requests(calls, timeout_s, seeds, single), seeds, single)

    def _photo_generation(
        self,
        photo: Photo,
        seeds: Sequence[int],
        single: bool,
        face: str,
        with_64: bool,
        timeout_s: float | None,
        options: Mapping[str, object],
    ) -> Generation[TransportT]:
        """The requests that make images from a photograph, each with the whole of it."""
        calls = photo_calls(photo, seeds, face, with_64, options)
        return Generation(self._requests(calls, timeout_s, list(seeds), single), seeds, single)

    def _streaming(
        self,
        embedding: object,
        seed: object,
        preview_every: int,
        timeout_s: float | None,
        options: Mapping[str, object],
    ) -> Streaming[TransportT]:
        """The requests for `stream`: one per stage. `embedding` is `None` where it comes later."""
        call, number = first_stage_call(seed, options)
        first = self._requests([call], timeout_s, [number], single=True)
        streaming = Streaming(first[0], number, as_count("preview_every", preview_every, 0))
        if embedding is not None:
            streaming.set_embedding(embedding)
        return streaming

    def _embedding_request(self, photo: Photo, face: str, timeout_s: float | None) -> ClientRequest[TransportT]:
        return self._requests([embedding_call(photo, face)], timeout_s, [0], single=True)[0]

    def _requests(
        self, calls: Sequence[Call], timeout_s: float | None, seeds: list[int], single: bool
    ) -> list[ClientRequest[TransportT]]:
        limit = self.timeout_s if timeout_s is None else as_timeout("timeout_s", timeout_s)
        return [
            ClientRequest(call, limit, self._retry, self._budget)
            if single
            else ClientRequest(call, limit, self._retry, self._budget, index, f"image {index} (seed {seeds[index]})")
            for index, call in enumerate(calls)
        ]

    def _give_back(self, request: ClientRequest[TransportT], error: ClientError | None) -> None:
        """An attempt has ended, or was given up: its server has one less."""
        assert request.server is not None
        self._server_pool.give_back(request.server, error, time.monotonic())
        if isinstance(error, UnavailableError):
            self._discovery.suspect()

    def _judge(self, request: ClientRequest[TransportT], outcome: Outcome) -> float | None:
        """The end of an attempt: what follows from its outcome.

        Returns:
            `None` where the answer came, else seconds until the next attempt.

        Raises:
            ClientError: There is no next attempt.
        """
        assert request.server is not None
        self._give_back(request, outcome if isinstance(outcome, ClientError) else None)
        now = time.monotonic()
        if not isinstance(outcome, ClientError):
            self._waiting = None
            request.complete(now)
            return None
        if self._closed and isinstance(outcome, CancelledRequestError):
            raise request.named(ClosedClientError(CLOSED_UNDER))
        verdict = request.fail(outcome, now, self._server_pool.has_other(request.server, now))
        if isinstance(verdict, ClientError):
            raise verdict
        if self._closed:
            raise request.named(ClosedClientError(f"{CLOSED_UNDER}; the last attempt: {outcome}"))
        self._waiting = outcome
        if not self._budget.answered and not self._warned and request.age_s(now) + verdict >= WARN_AFTER_S:
            self._warned = True
            logger.warning("waiting for %s: %s", ", ".join(self.urls), outcome)
        logger.info("request %s at %s: %s; again in %.2f s", request.request_id, request.server.url, outcome, verdict)
        return verdict
