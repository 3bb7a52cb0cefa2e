"""Turns on a processor that the stages share: one step at a time, the stage whose best row is most urgent first.

On a CPU both stages are processes on the same cores. Left alone they halve each other's speed, and a long request in
one stage slows a short one in the other: the scheduling policy would end at the process's border. So before each step a
stage takes the turn, and leaves it to the other one if a row that waits there is more urgent.

Where a step leaves the engine it needs one core, no more, and the others would idle: so a stage shares its turn then,
but not with a row that has a much longer way to go than its own. Short requests are not to pay for the throughput.

Turns are a courtesy: they change when a step runs, never its result, and nobody waits for ever. The kernel takes the
turn from a process that dies; from one that hangs, `PATIENCE_S` does.

Whoever waits sleeps until it is told to look: looking again and again would cost the one that computes its cores.
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

ASK_S = 0.01
"""How often a stage that waits looks for its best row anew, and whether the turn is free although nobody said so."""
PATIENCE_S = 2.0
"""Longest wait for a turn."""
FRESH_S = 0.1
"""What was said longer ago does not count: whoever waits says so every `ASK_S`."""
ALIKE = 2.0
"""A turn is shared with a row whose way is at most so many times as long as one's own."""
_SLOT = struct.Struct("=ddd")  # a claim, and when it was made, `time.monotonic()`


class Claim(NamedTuple):
    """What a stage has to do.

    Attributes:
        urgency: Of its best row; lower goes first.
        left_s: Seconds of computing that this row still needs.
    """

    urgency: float
    left_s: float


NOTHING = Claim(math.inf, math.inf)


class Turns(Protocol):
    """Who may run a step."""

    def take(self, claim: Callable[[], Claim]) -> None:
        """Returns when it is this stage's turn.

        Args:
            claim: What the stage has to do at the moment. Asked again while waiting.
        """
        ...

    def share(self) -> None:
        """The engine is done, and what is left of the step needs one core: somebody else may begin."""
        ...

    def rest(self) -> None:
        """Nothing to do: the turn goes to whoever wants it."""
        ...

    def close(self) -> None:
        """The last call."""
        ...


class NoTurns:
    """A stage with a processor of its own."""

    def take(self, claim: Callable[[], Claim]) -> None:
        """See `Turns.take`."""

    def share(self) -> None:
        """See `Turns.share`."""

    def rest(self) -> None:
        """See `Turns.rest`."""

    def close(self) -> None:
        """See `Turns.close`."""


class SharedTurns:
    """Turns among processes: a lock on a small file in which each says how urgent its work is, and a bell for each."""

    def __init__(self, file: Path, slot: int, slots: int) -> None:
        """Opens the file, or makes it.

        Args:
            file: The same for all who take turns.
            slot: Number of this stage, 0 .. slots - 1.
            slots: How many take turns.

        Raises:
            OSError: There is no space for it. Memory of a file without space ends the process that writes to it.
        """
        with contextlib.ExitStack() as opened:
            self._descriptor = _open(opened, file, os.O_CREAT)
            os.posix_fallocate(self._descriptor, 0, slots * _SLOT.size)
            self._bells = []
            for number in range(slots):
                bell = file.with_name(f"{file.name}.{number}")
                with contextlib.suppress(FileExistsError):
                    os.mkfifo(bell, 0o600)
                # like this neither reading nor writing waits for anybody at the other end
                self._bells.append(_open(opened, bell, os.O_NONBLOCK))
            self._memory = opened.enter_context(mmap.mmap(self._descriptor, slots * _SLOT.size))
            self._opened = opened.pop_all()
        self._slot, self._slots = slot, slots
        self._mine = False
        self._claim = NOTHING
        self._say(NOTHING)

    def take(self, claim: Callable[[], Claim]) -> None:
        """See `Turns.take`."""
        give_up = time.monotonic() + PATIENCE_S
        while True:
            self._claim = claim()
            if self._mine or self._lock():
                if self._claim.urgency <= self._best_other().urgency:
                    self._say(NOTHING)  # who has the turn does not wait
                    return
                self._unlock()
            self._say(self._claim)
            self._sleep()
            if time.monotonic() > give_up:
                return

    def share(self) -> None:
        """See `Turns.share`."""
        other = self._best_other()
        if self._mine and other is not NOTHING and other.left_s <= ALIKE * self._claim.left_s:
            self._unlock()

    def rest(self) -> None:
        """See `Turns.rest`."""
        self._say(NOTHING)
        if self._mine:
            self._unlock()

    def close(self) -> None:
        """See `Turns.close`."""
        self.rest()
        self._opened.close()

    def _lock(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._mine = True
        return self._mine

    def _unlock(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        self._mine = False
        for number, bell in enumerate(self._bells):
            if number != self._slot:
                with contextlib.suppress(BlockingIOError):  # it is full of rings
                    os.write(bell, b"!")

    def _sleep(self) -> None:
        """Until somebody rings, at most `ASK_S`."""
        if select.select([self._bells[self._slot]], [], [], ASK_S)[0]:
            with contextlib.suppress(BlockingIOError):
                os.read(self._bells[self._slot], 4096)

    def _say(self, claim: Claim) -> None:
        _SLOT.pack_into(self._memory, self._slot * _SLOT.size, *claim, time.monotonic())

    def _best_other(self) -> Claim:
        """The most urgent claim of those who wait elsewhere. A torn read is a wrong turn, no more."""
        now, best = time.monotonic(), NOTHING
        for slot in range(self._slots):
            if slot != self._slot:
                urgency, left_s, said = _SLOT.unpack_from(self._memory, slot * _SLOT.size)
                if now - said < FRESH_S and urgency < best.urgency:
                    best = Claim(urgency, left_s)
        return best


def _open(opened: contextlib.ExitStack, file: Path, flags: int) -> int:
    """A descriptor for reading and writing, which is closed with the others."""
    descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC | flags, 0o600)
    opened.callback(os.close, descriptor)
    return descriptor
