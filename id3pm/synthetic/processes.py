"""Several processes of this machine, one for each GPU or group of cores; each takes the next shard when it is free."""

from __future__ import annotations

import dataclasses
import multiprocessing
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from id3pm.errors import Id3pmError, ServerError
from id3pm.synthetic.maker import ShardMaker, Summary, WorkerSettings
from id3pm.synthetic.run import Make, overlapping
from id3pm.synthetic.shard import OnImage

_WANTED = "wanted"
_ENDED = "ended"
STOP_S = 10.0
"""Seconds that a process may take to end when it is told to."""


def in_processes(devices: Sequence[str]) -> Make:
    """`Make` with one process for each device; a device may be named several times, such as `cpu`."""

    def make(settings: WorkerSettings, numbers: Sequence[int], on_image: OnImage) -> Iterator[Summary]:
        workers = [_Worker(dataclasses.replace(settings, device=device)) for device in devices]
        try:
            yield from _dispatched(workers, numbers, on_image)
        finally:
            for worker in workers:
                worker.stop()

    return make


class _Worker:
    """A process and the connection to it."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.device = settings.device
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process: SpawnProcess = context.Process(target=_work, args=(settings, other), daemon=True)
        self.process.start()
        other.close()  # so that the end of the process ends the connection

    def stop(self) -> None:
        self.connection.close()
        self.process.terminate()
        self.process.join(STOP_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join(STOP_S)


def _dispatched(workers: Sequence[_Worker], numbers: Sequence[int], on_image: OnImage) -> Iterator[Summary]:
    waiting = iter(numbers)
    running = {worker.connection: worker for worker in workers}
    while running:
        for connection in wait(list(running)):
            assert isinstance(connection, Connection)
            worker = running[connection]
            try:
                message = connection.recv()
            except (EOFError, ConnectionResetError):
                worker.process.join(STOP_S)
                raise ServerError(
                    f"the process for {worker.device} ended with status {worker.process.exitcode}: run again to go on"
                ) from None
            if isinstance(message, BaseException):
                raise message
            if message == _ENDED:
                del running[connection]
            elif message == _WANTED:
                connection.send(next(waiting, None))
            elif isinstance(message, Summary):
                yield message
            else:
                on_image(message)


def _work(settings: WorkerSettings, connection: Connection) -> None:
    """The process: asks for shards until there are none."""
    sending, asking = threading.Lock(), threading.Lock()

    def send(message: object) -> None:
        with sending:
            connection.send(message)

    def next_number() -> int | None:
        with asking:
            send(_WANTED)
            number: int | None = connection.recv()
            return number

    try:
        maker = ShardMaker.load(settings)
        try:
            for summary in overlapping(maker, next_number, send, settings.overlap):
                send(summary)
        finally:
            maker.close()
        send(_ENDED)
    except (EOFError, BrokenPipeError):  # the parent has stopped
        return
    except (Id3pmError, OSError) as error:
        send(error)


def devices_of(device: str, processes: int | None) -> list[str]:
    """The device of each process: those of a list such as `cuda:0,cuda:1`, each `processes` times."""
    return [name for name in device.split(",") for _ in range(processes or 1)]
