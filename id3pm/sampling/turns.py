"""Turns on a processor that the stages share: one step at a time, the stage whose best row is most urgent first.

On a CPU both stages are processes on the same cores. Left alone they halve each other's speed, and a long request in
one stage slows a short one in the other: the scheduling policy would end at the process's border. So before each step a
stage takes the turn, and leaves it to the other one if a row that waits there is more urgent.

Turns are a courtesy: they change when a step runs, never its result, and nobody waits for ever. The kernel takes the
turn from a process that dies; from one that hangs, `PATIENCE_S` does.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import mmap
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

POLL_S = 0.0005
ASK_S = 0.005
"""How often a stage that waits looks for its best row anew: a look goes through all rows in flight."""
PATIENCE_S = 2.0
"""Longest wait for a turn."""
FRESH_S = 0.1
"""What was said longer ago does not count: whoever waits says so every `POLL_S`."""
NOBODY = math.inf
_SLOT = struct.Struct("=dd")  # urgency of the best row, and when that was said, `time.monotonic()`


class Turns(Protocol):
    """Who may run a step."""

    def take(self, urgency: Callable[[], float]) -> None:
        """Returns when it is this stage's turn.

        Args:
            urgency: Of the stage's best row at the moment; lower goes first. Asked again while waiting.
        """
        ...

    def rest(self) -> None:
        """Nothing to do: the turn goes to whoever wants it."""
        ...

    def close(self) -> None:
        """The last call."""
        ...


class NoTurns:
    """A stage with a processor of its own."""

    def take(self, urgency: Callable[[], float]) -> None:
        """See `Turns.take`."""

    def rest(self) -> None:
        """See `Turns.rest`."""

    def close(self) -> None:
        """See `Turns.close`."""


class SharedTurns:
    """Turns among processes, by a lock on a small file in which each says how urgent its work is."""

    def __init__(self, file: Path, slot: int, slots: int) -> None:
        """Opens the file, or makes it.

        Args:
            file: The same for all who take turns.
            slot: Number of this stage, 0 .. slots - 1.
            slots: How many take turns.

        Raises:
            OSError: There is no space for it. Memory of a file without space ends the process that writes to it.
        """
        self._descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(self._descriptor, 0, slots * _SLOT.size)
        except OSError:
            os.close(self._descriptor)
            raise
        self._memory = mmap.mmap(self._descriptor, slots * _SLOT.size)
        self._slot, self._slots = slot, slots
        self._mine = False
        self._say(NOBODY)

    def take(self, urgency: Callable[[], float]) -> None:
        """See `Turns.take`."""
        mine, asked = urgency(), time.monotonic()
        give_up = asked + PATIENCE_S
        while True:
            if self._mine or self._lock():
                if mine <= self._others():
                    self._say(NOBODY)  # who has the turn does not wait
                    return
                self._unlock()
            self._say(mine)
            time.sleep(POLL_S)
            now = time.monotonic()
            if now > give_up:
                return
            if now - asked > ASK_S:
                mine, asked = urgency(), now

    def rest(self) -> None:
        """See `Turns.rest`."""
        self._say(NOBODY)
        if self._mine:
            self._unlock()

    def close(self) -> None:
        """See `Turns.close`."""
        self.rest()
        self._memory.close()
        os.close(self._descriptor)

    def _lock(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._mine = True
        return self._mine

    def _unlock(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self._mine = False

    def _say(self, urgency: float) -> None:
        _SLOT.pack_into(self._memory, self._slot * _SLOT.size, urgency, time.monotonic())

    def _others(self) -> float:
        """The urgency of the best row elsewhere. A torn read is a wrong turn, no more."""
        now = time.monotonic()
        slots = [
            _SLOT.unpack_from(self._memory, slot * _SLOT.size) for slot in range(self._slots) if slot != self._slot
        ]
        return min((urgency for urgency, said in slots if now - said < FRESH_S), default=NOBODY)
