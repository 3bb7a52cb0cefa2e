"""The compute lock: stages that share a processor run one step at a time, the most urgent row first.

On a CPU both stages are processes on the same cores. Without a lock they halve each other's speed, and a long request
in one stage slows a short one in the other: the scheduling policy would hold within one process only. So a stage
acquires the lock before each step, and releases it to the other one if a row that waits there is more urgent.

After the engine call a step needs one core only. The stage then yields the lock early, but not to a row that needs
much more time than its own: short requests do not pay for throughput.

The lock changes when a step runs, never its result, and every wait has a limit. The kernel releases the lock of a
process that dies; a process that hangs is not waited for longer than `TIMEOUT_S`.

A waiting stage sleeps until a named pipe wakes it: polling would cost the computing stage its cores.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import mmap
import os
import select
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

POLL_S = 0.01
"""How often a stage that waits evaluates its claim again, and whether the lock is free."""
TIMEOUT_S = 2.0
"""Longest wait for the lock."""
FRESH_S = 0.1
"""Age in seconds at which a claim expires: a waiting stage publishes its claim every `POLL_S`."""
ALIKE = 2.0
"""The lock is yielded early to a row that needs at most this many times the seconds of the row that yields."""
_SLOT = struct.Struct("=ddd")  # a claim, and its time, `time.monotonic()`


class Claim(NamedTuple):
    """The work of a stage: how urgent and how long.

    Attributes:
        urgency: Of its best row; lower goes first.
        left_s: Seconds of computing that this row still needs.
    """

    urgency: float
    left_s: float


NOTHING = Claim(math.inf, math.inf)


class ComputeLock(Protocol):
    """Decides which stage may run a step."""

    def acquire(self, claim: Callable[[], Claim]) -> None:
        """Returns when this stage may run a step.

        Args:
            claim: The current work of the stage. Called again while waiting.
        """
        ...

    def yield_rest(self) -> None:
        """Yields the lock early: the engine is done and the rest of the step needs one core."""
        ...

    def release(self) -> None:
        """Releases the lock to other stages: this one has no work."""
        ...

    def close(self) -> None:
        """Releases the lock and frees its files; the last call."""
        ...


class NoComputeLock:
    """A stage with a processor of its own."""

    def acquire(self, claim: Callable[[], Claim]) -> None:
        """See `ComputeLock.acquire`."""

    def yield_rest(self) -> None:
        """See `ComputeLock.yield_rest`."""

    def release(self) -> None:
        """See `ComputeLock.release`."""

    def close(self) -> None:
        """See `ComputeLock.close`."""


class SharedComputeLock:
    """A lock among processes: a locked file in which each publishes its claim, and a named pipe that wakes each."""

    def __init__(self, file: Path, slot: int, slots: int) -> None:
        """Opens the file, or makes it.

        Args:
            file: The same for all processes.
            slot: Number of this stage, 0 .. slots - 1.
            slots: How many stages share the lock.

        Raises:
            OSError: There is no space for it. Memory of a file without space ends the process that writes to it.
        """
        with contextlib.ExitStack() as opened:
            self._descriptor = _open(opened, file, os.O_CREAT)
            os.posix_fallocate(self._descriptor, 0, slots * _SLOT.size)
            self._pipes = []
            for number in range(slots):
                pipe = file.with_name(f"{file.name}.{number}")
                with contextlib.suppress(FileExistsError):
                    os.mkfifo(pipe, 0o600)
                # opened for both, so that neither reading nor writing waits for the other end
                self._pipes.append(_open(opened, pipe, os.O_NONBLOCK))
            self._memory = opened.enter_context(mmap.mmap(self._descriptor, slots * _SLOT.size))
            self._opened = opened.pop_all()
        self._slot, self._slots = slot, slots
        self._held = False
        self._claim = NOTHING
        self._publish(NOTHING)

    def acquire(self, claim: Callable[[], Claim]) -> None:
        """See `ComputeLock.acquire`."""
        give_up = time.monotonic() + TIMEOUT_S
        while True:
            self._claim = claim()
            if self._held or self._lock():
                if self._claim.urgency <= self._best_other().urgency:
                    self._publish(NOTHING)  # the holder does not wait
                    return
                self._unlock()
            self._publish(self._claim)
            self._sleep()
            if time.monotonic() > give_up:
                return

    def yield_rest(self) -> None:
        """See `ComputeLock.yield_rest`."""
        other = self._best_other()
        if self._held and other is not NOTHING and other.left_s <= ALIKE * self._claim.left_s:
            self._unlock()

    def release(self) -> None:
        """See `ComputeLock.release`."""
        self._publish(NOTHING)
        if self._held:
            self._unlock()

    def close(self) -> None:
        """See `ComputeLock.close`."""
        self.release()
        self._opened.close()

    def _lock(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._held = True
        return self._held

    def _unlock(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self._held = False
        for number, pipe in enumerate(self._pipes):
            if number != self._slot:
                with contextlib.suppress(BlockingIOError):  # the pipe is full
                    os.write(pipe, b"!")

    def _sleep(self) -> None:
        """Until another stage releases the lock, at most `POLL_S`."""
        if select.select([self._pipes[self._slot]], [], [], POLL_S)[0]:
            with contextlib.suppress(BlockingIOError):
                os.read(self._pipes[self._slot], 4096)

    def _publish(self, claim: Claim) -> None:
        _SLOT.pack_into(self._memory, self._slot * _SLOT.size, *claim, time.monotonic())

    def _best_other(self) -> Claim:
        """The most urgent claim of the other stages. A torn read costs one step in the wrong order, no more."""
        now, best = time.monotonic(), NOTHING
        for slot in range(self._slots):
            if slot != self._slot:
                urgency, left_s, published = _SLOT.unpack_from(self._memory, slot * _SLOT.size)
                if now - published < FRESH_S and urgency < best.urgency:
                    best = Claim(urgency, left_s)
        return best


def _open(opened: contextlib.ExitStack, file: Path, flags: int) -> int:
    """A descriptor for reading and writing, which is closed with the others."""
    descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
    opened.callback(os.close, descriptor)
    return descriptor
