"""Discovery: resolves names repeatedly, because the servers behind a name change. Both clients share it.

A lookup runs in a thread of its own, one at a time, so that a slow resolver delays no request. It begins with a
request, not by a clock: a client without requests asks for nothing.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

logger = logging.getLogger("id3pm_client")
REFRESH_S: Final = 5.0
"""Seconds after which a name is looked up anew; at most so long a new server gets no request."""
SOONEST_S: Final = 1.0
"""The same after a server has failed."""
MOST: Final = 1024
"""Addresses of one name."""


class Discovery:
    """The addresses of names.

    Attributes:
        names: `host:port` each; empty for a client whose servers have fixed addresses.
        first_lookup: Set when the first lookup is over, with or without a result.
    """

    def __init__(self, names: Sequence[str], on_found: Callable[[Mapping[str, Sequence[str]]], None]) -> None:
        """Looks nothing up yet.

        Args:
            names: `host:port` each.
            on_found: Called, in the thread of the lookup, with the addresses of each name that has any.
        """
        self.names = tuple(names)
        self.first_lookup = threading.Event()
        self._on_found = on_found
        self._found: dict[str, Sequence[str]] = {}
        self._due = 0.0
        self._busy = False
        self._lock = threading.Lock()
        if not names:
            self.first_lookup.set()

    def begin(self) -> None:
        """Starts a lookup, if one is due and none is running."""
        with self._lock:
            if not self.names or self._busy or time.monotonic() < self._due:
                return
            self._busy = True
        threading.Thread(target=self._look_up, name="id3pm-lookup", daemon=True).start()

    def suspect(self) -> None:
        """A server has failed: the next lookup is due sooner."""
        with self._lock:
            self._due = min(self._due, time.monotonic() + SOONEST_S)

    def _look_up(self) -> None:
        try:
            for name in self.names:
                if found := addresses(name):
                    self._found[name] = found  # else the last ones stay: a resolver that fails ends no server
            if self._found:
                self._on_found(self._found)
        finally:
            with self._lock:
                self._busy, self._due = False, time.monotonic() + REFRESH_S
            self.first_lookup.set()


def addresses(name: str) -> list[str]:
    """The addresses of `host:port`, `address:port` each, in order; empty if there are none.

    Of a name with addresses of both families only those of the resolver's first one count: they are the same servers.
    """
    host, _, port = name.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        logger.debug("%s is not found: %s", name, error)
        return []
    family = found[0][0] if found else None
    hosts = sorted({str(address[0]) for kind, _, _, _, address in found if kind == family})[:MOST]
    return [f"[{address}]:{port}" if ":" in address else f"{address}:{port}" for address in hosts]
