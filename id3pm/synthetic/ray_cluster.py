"""A Ray cluster: an actor for each GPU or group of cores, a shard for each task."""

from __future__ import annotations

import collections
import dataclasses
import os
import socket
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Any

from id3pm.errors import InvalidInputError, MissingExtraError, ServerError, os_reason
from id3pm.installation import how_to_install
from id3pm.synthetic.maker import ShardMaker, Summary, WorkerSettings
from id3pm.synthetic.run import Make
from id3pm.synthetic.shard import OnImage

CONNECT_S = 10.0
START_S = 1800.0
"""Seconds until the first worker must have begun: an autoscaler may have to start a machine."""
HINT = "ray start prints the address of a cluster, HOST:6379 for most"
MOST_LOSSES = 5
"""Times that one shard may lose its worker before the run ends: a shard may end every worker."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RayOptions:
    """How the cluster is used.

    Attributes:
        address: `auto`, `HOST:PORT` or `ray://HOST:PORT`; `local` starts a cluster on this machine.
        workers: Actors; `None` for one for each GPU of the cluster as it is now (CPU: for each `cpus` cores). More are
            requests to Ray's autoscaler.
        cpus: Cores of each.
        gpus: GPUs of each; a fraction lets several share one.
    """

    address: str
    workers: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0


def on_ray(options: RayOptions) -> Make:
    """`Make` on a Ray cluster; plan, output and repository have the same path or URL on all its machines."""

    def make(settings: WorkerSettings, numbers: Sequence[int], on_image: OnImage) -> Iterator[Summary]:
        ray = _connected(options.address)
        try:
            count = min(options.workers or _fitting(ray.cluster_resources(), options), len(numbers))
            actor = ray.remote(_Worker).options(
                num_cpus=options.cpus,
                num_gpus=options.gpus,
                max_restarts=-1,  # on another machine, where this one is lost
                max_task_retries=MOST_LOSSES,
                max_concurrency=settings.overlap + 1,
            )
            yield from _dispatched(ray, [actor.remote(settings) for _ in range(count)], numbers, settings.overlap)
        finally:
            ray.shutdown()

    return make


class _Worker:
    """The actor: engines that stay loaded."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._maker = ShardMaker.load(settings)

    def ready(self) -> None:
        """Answers once the engines are loaded."""

    def make(self, number: int) -> Summary:
        return self._maker.make(number)


def _require_listener(address: str) -> None:
    """Raises within seconds where no Ray cluster answers: Ray itself asks again for minutes, without a word.

    Raises:
        InvalidInputError: The address has another form.
        ServerError: Nothing answers there, or something else.
    """
    if address in ("auto", "local"):
        return
    try:
        parts = urllib.parse.urlsplit(address if "://" in address else f"ray://{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = parts = None
    if parts is None or parts.scheme != "ray" or not host or not port or parts.path:
        raise InvalidInputError(f"--ray {address[:200]!r}: give auto, local, HOST:PORT or ray://HOST:PORT")
    try:
        socket.create_connection((host, port), CONNECT_S).close()
    except OSError as error:
        raise ServerError(f"--ray {address}: nothing answers there ({os_reason(error)}): {HINT}") from error
    if os.environ.get("RAY_USE_TLS", "0") == "0" and not _speaks_grpc(f"{_bracketed(host)}:{port}"):
        raise ServerError(f"--ray {address}: what answers there is no Ray cluster: {HINT}")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _speaks_grpc(target: str) -> bool:
    """Whether a gRPC server, such as Ray's, listens there: Ray's dashboard, for one, is none."""
    try:
        import grpc
    except ImportError as error:
        raise MissingExtraError(f"--ray needs gRPC: {how_to_install('dataset')}") from error
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            grpc.channel_ready_future(channel).result(CONNECT_S)
        except grpc.FutureTimeoutError:
            return False
    return True


def _connected(address: str) -> Any:
    _require_listener(address)
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError(f"--ray needs Ray: {how_to_install('ray')}") from error
    try:
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ServerError(f"--ray {address}: {error}") from error
    return ray


def _fitting(resources: dict[str, float], options: RayOptions) -> int:
    """Actors that fit into the cluster."""
    wanted = {"GPU": options.gpus, "CPU": options.cpus}
    fits = [int(resources.get(name, 0.0) / amount) for name, amount in wanted.items() if amount > 0]
    if not fits or min(fits) < 1:
        raise InvalidInputError(
            f"the cluster has {resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs: no worker of "
            f"{options.cpus:g} CPUs and {options.gpus:g} GPUs fits; to let the autoscaler add machines give --workers"
        )
    return min(fits)


def _dispatched(ray: Any, actors: Sequence[Any], numbers: Sequence[int], overlap: int) -> Iterator[Summary]:
    """Each actor that has begun is given `overlap` shards at a time; those that fit nowhere yet hold up none.

    Ray gives a shard whose worker is lost to its successor.
    """
    waiting, free = collections.deque(numbers), collections.deque[Any]()
    starting = {actor.ready.remote(): actor for actor in actors}
    running: dict[Any, tuple[int, Any]] = {}
    while waiting or running:
        while waiting and free:
            number, actor = waiting.popleft(), free.popleft()
            running[actor.make.remote(number)] = number, actor
        limit = START_S if len(starting) == len(actors) else None
        found, _ = ray.wait([*running, *starting], num_returns=1, timeout=limit)
        if not found:
            raise ServerError(f"no Ray worker began within {START_S / 60:g} minutes: ray status says what it waits for")
        (ready,) = found
        if ready in starting:
            _result(ray, ready, "no worker could begin")
            free.extend([starting.pop(ready)] * overlap)
        else:
            number, actor = running.pop(ready)
            free.append(actor)
            yield _result(ray, ready, f"shard {number}: no worker could make it")


def _result(ray: Any, ready: Any, failed: str) -> Any:
    """What a task came to.

    Raises:
        Id3pmError: The task's own error, or `failed` with Ray's reason.
    """
    try:
        return ray.get(ready)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error
    except ray.exceptions.RayError as error:  # its text ends with the reason
        reason = [line for line in str(error).splitlines() if line.strip()][-1]
        raise ServerError(f"{failed}: {reason.strip()}") from error
