"""Draws noise ahead of the steps that need it, in threads: numpy releases the interpreter lock while it draws."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import heapq
import itertools
import math
import threading
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from id3pm.diffusion.noise import noise
from id3pm.diffusion.start import first_input
from id3pm.sampling.row import Row

FloatArray = NDArray[np.float32]
TIMEOUT_S = 60.0  # a draw takes milliseconds
LIMIT_BYTES = 64 << 20
"""Of drawn noise that no step has taken yet. Half of it is for the first draws of rows that have arrived, half for
later steps of rows that are being sampled; only their very next step may use all of it."""
STEPS_AHEAD = 8
"""Most steps of a row that are drawn ahead: bounds what is drawn in vain for a row that leaves."""
_AT_ONCE = -1  # before all that is due at a step


@dataclasses.dataclass(eq=False, slots=True)
class _Draw:
    """One draw of a row.

    Attributes:
        row: Whose.
        number: In the seed contract.
        begun: A thread has it.
        wanted: Its row has not left.
        outcome: The noise, or why there is none: that is its row's own trouble; `None` until it is drawn.
        waiting: Counts the draws for which a caller waits, this one among them.
    """

    row: Row
    number: int
    begun: bool = False
    wanted: bool = True
    outcome: FloatArray | Exception | None = None
    waiting: list[int] | None = None


@dataclasses.dataclass(eq=False, slots=True)
class _Ahead:
    """The draws of a row that no step has taken yet.

    Attributes:
        row: The row.
        sampled: Whether a batch has had it.
        asked: How many draws of its plan have been asked for, or are not needed any more.
        draws: Those that have been asked for and not taken, by number.
    """

    row: Row
    sampled: bool = False
    asked: int = 0
    draws: dict[int, _Draw] = dataclasses.field(default_factory=dict)

    def lead(self) -> int | None:
        """Steps from its next one to the one that needs the draw to ask for; `None` where there is none."""
        draws, row = self.row.plan.draws, self.row
        while self.asked < len(draws):
            step = max(draws[self.asked] - 1, 0)
            if step >= row.step and not (draws[self.asked] == 0 and row.begun):
                return step - row.step
            self.asked += 1  # a step took it before it was asked for
        return None


class NoiseAhead:
    """The draws of the seed contract for rows in flight. What a row will need is known when it arrives.

    The draws of the nearest steps come first, whichever row's they are and whatever was asked for before. In place of
    draw 0 stands the row's first input: see `id3pm.diffusion.start`.
    """

    def __init__(
        self,
        stage: int,
        shape: tuple[int, ...],
        host: Callable[[tuple[int, ...]], FloatArray],
        threads: int = 1,
        limit_bytes: int = LIMIT_BYTES,
        steps: int = STEPS_AHEAD,
    ) -> None:
        """Starts no thread yet.

        Args:
            stage: Of the seed contract.
            shape: Of an image, [3, S, S].
            host: Makes the memory that is drawn into.
            threads: How many draw at a time.
            limit_bytes: Most bytes that are drawn ahead.
            steps: Most steps of a row that are drawn ahead.
        """
        self._stage, self._shape, self._host = stage, shape, host
        self._most = limit_bytes // (4 * math.prod(shape))
        self._most_later = self._most // 2
        self._steps = steps
        self._threads = threads
        self._pool = concurrent.futures.ThreadPoolExecutor(threads, thread_name_prefix=f"noise-{stage}")
        self._working = 0  # threads that draw
        self._queue: list[tuple[int, int, _Draw]] = []  # due at this step, order of asking
        self._order = itertools.count()
        self._now = 0  # steps of the batch
        self._rows: dict[Row, _Ahead] = {}
        self._arrived: dict[Row, None] = {}  # in this order; for their first draws there was no room
        self._held = {False: 0, True: 0}  # draws not taken, of rows that no batch has had, and of the others
        self._closed = False
        self._changed = threading.Condition()  # guards all of it

    def begin(self, rows: Sequence[Row]) -> None:
        """Begins to draw what the first steps of rows need that have arrived; from any thread."""
        with self._changed:
            self._arrived.update(dict.fromkeys(row for row in rows if not row.answered))
            self._serve_arrived()
            self._start()

    def prefetch(self, rows: Sequence[Row]) -> None:
        """Begins to draw what the coming steps need of rows that are being sampled; after each of their steps."""
        with self._changed:
            self._now += 1
            aheads = [self._sampled(row) for row in rows if not row.answered]
            leads = [(lead, place, ahead) for place, ahead in enumerate(aheads) if (lead := ahead.lead()) is not None]
            heapq.heapify(leads)
            while leads and leads[0][0] < self._steps and self._has_room(leads[0][0]):
                lead, place, ahead = leads[0]
                self._ask(ahead, self._now + lead)
                following = ahead.lead()
                if following is None:
                    heapq.heappop(leads)
                else:
                    heapq.heapreplace(leads, (following, place, ahead))
            self._serve_arrived()
            self._start()

    def take(self, rows: Sequence[Row], draws: Sequence[int]) -> list[FloatArray]:
        """These draws, [3, S, S] each, which then belong to the caller; waits for those that are not ready.

        Raises:
            TimeoutError: They are not there after a minute.
        """
        with self._changed:
            taken = [self._taken(row, draw) for row, draw in zip(rows, draws, strict=True)]
            missing = [draw for draw in taken if draw.outcome is None]
            waiting = [len(missing)]
            for draw in missing:
                draw.waiting = waiting
                if not draw.begun:  # it may wait for its turn already: the first turn counts
                    heapq.heappush(self._queue, (_AT_ONCE, next(self._order), draw))
            self._start()
            if not self._changed.wait_for(lambda: waiting[0] == 0, TIMEOUT_S):
                raise TimeoutError(f"{waiting[0]} draws of noise took more than {TIMEOUT_S:.0f} s")
        return [_drawn(draw.outcome) for draw in taken]

    def drop(self, row: Row) -> None:
        """Forgets what was drawn for a row that has ended, and draws no more for it."""
        with self._changed:
            self._arrived.pop(row, None)
            ahead = self._rows.pop(row, None)
            if ahead is not None:
                self._held[ahead.sampled] -= len(ahead.draws)
                for draw in ahead.draws.values():
                    draw.wanted = False

    def close(self) -> None:
        """Ends the threads."""
        with self._changed:
            self._closed = True
            self._queue.clear()
        self._pool.shutdown(cancel_futures=True)

    def _has_room(self, lead: int) -> bool:
        """Whether a draw for a row that is being sampled may be asked for."""
        if sum(self._held.values()) >= self._most:
            return False
        return lead == 0 or self._held[True] < self._most_later

    def _serve_arrived(self) -> None:
        """Asks for the first draws of rows that have arrived, as far as there is room."""
        while self._arrived and self._held[False] < self._most - self._most_later and self._has_room(0):
            row = next(iter(self._arrived))
            ahead = self._rows.setdefault(row, _Ahead(row))
            if ahead.sampled or ahead.lead() != 0:
                del self._arrived[row]
            else:
                self._ask(ahead, self._now)

    def _sampled(self, row: Row) -> _Ahead:
        """A row's draws, from now on those of one that a batch has."""
        ahead = self._rows.setdefault(row, _Ahead(row))
        if not ahead.sampled:
            ahead.sampled = True
            self._held[False] -= len(ahead.draws)
            self._held[True] += len(ahead.draws)
        return ahead

    def _ask(self, ahead: _Ahead, due: int) -> None:
        """Asks for the draw of which `lead` has spoken."""
        number = ahead.row.plan.draws[ahead.asked]
        draw = ahead.draws[number] = _Draw(ahead.row, number)
        ahead.asked += 1
        self._held[ahead.sampled] += 1
        heapq.heappush(self._queue, (due, next(self._order), draw))

    def _taken(self, row: Row, number: int) -> _Draw:
        ahead = self._rows.get(row)
        draw = None if ahead is None else ahead.draws.pop(number, None)
        if ahead is None or draw is None:
            return _Draw(row, number)
        self._held[ahead.sampled] -= 1
        return draw

    def _start(self) -> None:
        """Starts as many threads as there is work for: what a task costs, the sampling loop pays."""
        while not self._closed and self._working < min(self._threads, len(self._queue)):
            self._working += 1
            self._pool.submit(self._work)

    def _work(self) -> None:
        while (draw := self._next()) is not None:
            outcome = self._outcome(draw.row, draw.number)
            with self._changed:
                draw.outcome = outcome
                if draw.waiting is not None:
                    draw.waiting[0] -= 1
                    if draw.waiting[0] == 0:
                        self._changed.notify_all()

    def _next(self) -> _Draw | None:
        """The draw that is due first; `None` ends the thread."""
        with self._changed:
            while self._queue:
                draw = heapq.heappop(self._queue)[2]
                if draw.wanted and not draw.begun:
                    draw.begun = True
                    return draw
            self._working -= 1
            return None

    def _outcome(self, row: Row, draw: int) -> FloatArray | Exception:
        try:
            drawn = noise(row.request.seed, self._stage, draw, self._shape, out=self._host(self._shape))
            if draw == 0 and row.plan.start is not None:
                drawn[...] = first_input(drawn, row.plan.start, row.request.low_res)
            return drawn
        except Exception as error:
            return error


def _drawn(outcome: FloatArray | Exception | None) -> FloatArray:
    assert outcome is not None, "it was waited for"
    if isinstance(outcome, Exception):
        raise outcome
    return outcome
