"""Makes the shards of a plan that are missing."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import queue
import threading
from collections.abc import Callable, Iterator, Sequence

from id3pm.errors import CancelledError, InvalidInputError
from id3pm.synthetic.maker import ShardMaker, Summary, WorkerSettings, copy_plan, open_plan, require_same_plan
from id3pm.synthetic.progress import RunProgress
from id3pm.synthetic.shard import OnImage
from id3pm.synthetic.shard_files import KEPT, kept_name, numbers_of, read_table
from id3pm.synthetic.store import Store, open_store

Make = Callable[[WorkerSettings, Sequence[int], OnImage], Iterator[Summary]]
"""Makes shards with these settings and tells of each that is done, in any order; the function is told of each image."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Totals:
    """What a run came to.

    Attributes:
        there: Shards that were there before.
        made: Shards that this run made.
        kept: Images in these.
        rejected: Images made in vain.
        missing: Planned images without an attempt that was kept.
        empty: All shards of the plan are there, those of other parts too, and none has an image: all were rejected.
    """

    there: int
    made: int
    kept: int
    rejected: int
    missing: int
    empty: bool


def shards_of_part(shards: int, parts: int, part: int) -> list[int]:
    """The shards of one of several workers that know nothing of each other: every `parts`-th.

    Raises:
        InvalidInputError: There is no such part.
    """
    if not 0 <= part < parts:
        raise InvalidInputError(f"part={part}: must be from 0 to {parts - 1} with --parts {parts}")
    return list(range(part, shards, parts))


def run(
    settings: WorkerSettings,
    make: Make,
    parts: int = 1,
    part: int = 0,
    progress: Callable[[int, int], RunProgress] = RunProgress,
) -> Totals:
    """Makes all shards of a part that are not there yet.

    Args:
        settings: Of the workers.
        make: How the shards are made.
        parts: Into how many parts the shards are dealt.
        part: Which of them.
        progress: Given the numbers of images and shards, shows what is done.

    Raises:
        OtherDatasetError: The folder holds another data set.
        Id3pmError: A shard cannot be made; those that are done stay.
    """
    plan, store = open_plan(settings.plan), open_store(settings.out)
    require_same_plan(store, plan)
    numbers = shards_of_part(plan.header.shards, parts, part)
    there = numbers_of(store.names())
    missing = [number for number in numbers if number not in there]
    copy_plan(settings.plan, store)
    summaries = []
    shown = progress(sum(plan.shard_sizes[number] for number in missing), len(missing))
    if missing:
        with shown.running():
            for summary in make(settings, missing, shown.image):
                shown.shard(summary, plan.shard_sizes[summary.number])
                summaries.append(summary)
    kept = sum(summary.kept for summary in summaries)
    return Totals(
        there=len(numbers) - len(missing) + sum(summary.found for summary in summaries),
        made=sum(not summary.found for summary in summaries),
        kept=kept,
        rejected=sum(summary.rejected for summary in summaries),
        missing=sum(summary.missing for summary in summaries),
        empty=not kept and _empty(store, plan.header.shards),
    )


def _empty(store: Store, shards: int) -> bool:
    """Whether all shards are there and none has an image; tables are read up to the first that has."""
    numbers = range(shards)
    there = numbers_of(store.names())
    return there.issuperset(numbers) and not any(len(read_table(store, kept_name(n), KEPT)) for n in numbers)


def in_this_process(settings: WorkerSettings, numbers: Sequence[int], on_image: OnImage) -> Iterator[Summary]:
    """`Make` with the engines of this process, or against services; the first error ends the others."""
    waiting = iter(numbers)
    lock = threading.Lock()

    def next_number() -> int | None:
        with lock:
            return next(waiting, None)

    maker = ShardMaker.load(settings)
    try:
        yield from overlapping(maker, next_number, on_image, settings.overlap)
    finally:
        maker.close()


def overlapping(
    maker: ShardMaker, next_number: Callable[[], int | None], on_image: OnImage, overlap: int
) -> Iterator[Summary]:
    """Makes several shards at once, so that rows of the next ones fill the batches at the end of a shard.

    Args:
        maker: Makes them.
        next_number: Gives the number of the next shard, `None` where none is left; called by several threads.
        on_image: Told of each image.
        overlap: How many shards at once.

    Raises:
        Exception: The first that a shard ended with; the others are given up.
    """
    done: queue.SimpleQueue[Summary | BaseException | None] = queue.SimpleQueue()
    stopped = threading.Event()

    def watch(kept: bool) -> None:
        if stopped.is_set():
            raise CancelledError("another shard failed")
        on_image(kept)

    def work() -> None:
        try:
            while not stopped.is_set() and (number := next_number()) is not None:
                done.put(maker.make(number, watch))
            done.put(None)
        except BaseException as error:
            done.put(error)

    with concurrent.futures.ThreadPoolExecutor(overlap, "id3pm-shard") as workers:
        for _ in range(overlap):
            workers.submit(work)
        left = overlap
        try:
            while left:
                outcome = done.get()
                if isinstance(outcome, BaseException):
                    raise outcome
                if outcome is None:
                    left -= 1
                else:
                    yield outcome
        except BaseException:
            stopped.set()
            maker.close()  # what the other threads wait for ends
            raise
