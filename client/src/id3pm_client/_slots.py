"""Slots: how many requests a client may have on their way at once. No I/O, so both clients share it."""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable


class Slot:
    """One place; it counts from when it is granted until it is given back.

    Attributes:
        granted: Whether the request may be sent.
    """

    def __init__(self, on_granted: Callable[[], None]) -> None:
        self.granted = False
        self.on_granted = on_granted


class Slots:
    """Grants slots in the order of the requests for them; thread-safe."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: collections.deque[Slot] = collections.deque()
        self._lock = threading.Lock()

    def request(self, on_granted: Callable[[], None]) -> Slot:
        """A slot, granted already or later; `on_granted` is called in either case, from any thread."""
        slot = Slot(on_granted)
        with self._lock:
            self._waiting.append(slot)
        self._grant()
        return slot

    def give_back(self, slot: Slot) -> None:
        """Ends the use of a slot, or the wait for it."""
        with self._lock:
            if slot.granted:
                self._free += 1
            else:
                self._waiting.remove(slot)
        self._grant()

    def _grant(self) -> None:
        granted = []
        with self._lock:
            while self._free and self._waiting:
                self._free -= 1
                granted.append(self._waiting.popleft())
                granted[-1].granted = True
        for slot in granted:
            slot.on_granted()
