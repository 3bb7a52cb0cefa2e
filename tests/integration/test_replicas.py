"""Real replicas behind a real Envoy: a replica dies or drains under load, and nothing is lost or different."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from envoy_process import Envoy, ports_of
from services import idle
from serving_process import Serving, free_ports, group_members
from waiting import wait_until

from id3pm.samples import PHOTOGRAPH
from id3pm.serving.launcher.process import children
from id3pm.serving.service import Service
from id3pm_client import AsyncClient, Client, GeneratedImage, Progress, Retry

ONCE = Retry(limit=0, first_contact=0)  # what is repeated, the proxy repeats


@pytest.fixture(scope="module")
def half(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Envoy]:
    """Envoy in front of two replicas, one of which is not there."""
    http_port, grpc_port = free_ports(2)
    envoy = Envoy(tmp_path_factory.mktemp("envoy"), [ports_of(service), (http_port, grpc_port)])
    wait_until(lambda: {len(ports) for ports in envoy.in_ring().values()} == {1}, pause_s=0.05)
    yield envoy
    envoy.close()


def test_half_of_the_replicas_is_enough(service: Service, half: Envoy, embedding: np.ndarray) -> None:
    with Client(half.url, retry=ONCE) as client, Client(service.grpc_url) as direct:
        images = client.generate(embedding, range(8), steps=2)
        alone = direct.generate(embedding, range(8), steps=2)
        assert [image.image.tobytes() for image in images] == [image.image.tobytes() for image in alone]
        assert [image.receipt for image in images] == [image.receipt for image in alone]
        assert client.embed(PHOTOGRAPH).vector.tobytes() == direct.embed(PHOTOGRAPH).vector.tobytes()


def test_a_stream_and_its_cancel_pass_through(service: Service, half: Envoy, embedding: np.ndarray) -> None:
    with Client(half.url, retry=ONCE) as client, Client(service.grpc_url) as direct:
        events = list(client.stream(embedding, 3, steps=1000))
        assert isinstance(events[-1], GeneratedImage)
        seen = [event.step for event in events if isinstance(event, Progress)]
        assert max(seen) > 0, "watch reaches the replica that has the request"
        for event in client.stream(embedding, 4, steps=1000):
            if isinstance(event, Progress):
                break
        assert wait_until(lambda: idle(direct)) < 10.0


class ReplicatedService:
    """Two replicas in processes of their own, and Envoy."""

    def __init__(self, repository: Path, folder: Path) -> None:
        self.repository = repository
        self.replicas = [Serving(repository), Serving(repository)]
        self.envoy = Envoy(folder, [(each.http_port, each.grpc_port) for each in self.replicas])
        wait_until(lambda: {len(ports) for ports in self.envoy.in_ring().values()} == {2}, pause_s=0.1)

    def kill(self, number: int) -> None:
        """SIGKILL to a replica and to all of its processes, as the end of its machine."""
        replica = self.replicas[number]
        groups = [*children(replica.process.pid), replica.process.pid]
        for group in groups:
            os.killpg(group, signal.SIGKILL)
        replica.process.wait(timeout=10)
        wait_until(lambda: not any(group_members(group) for group in groups))

    def close(self) -> None:
        self.envoy.close()
        for replica in self.replicas:
            replica.kill()


@pytest.fixture
def replicated(repository: Path, tmp_path: Path) -> Iterator[ReplicatedService]:
    replicated = ReplicatedService(repository, tmp_path)
    yield replicated
    replicated.close()


async def under_load(
    url: str, embedding: np.ndarray, fault: Callable[[], Awaitable[None]], retry: Retry
) -> list[GeneratedImage]:
    """The images of 24 requests, into whose middle a fault comes."""
    async with AsyncClient(url, retry=retry, max_in_flight=24, timeout_s=120) as client:
        arrived = asyncio.Event()
        images: Any = asyncio.create_task(
            client.generate(embedding, range(24), steps=60, on_image=lambda *_: arrived.set())
        )
        await asyncio.wait_for(arrived.wait(), timeout=60)
        await fault()
        made: list[GeneratedImage] = await asyncio.wait_for(images, timeout=120)
    return made


@pytest.mark.slow
def test_a_replica_dies_and_one_drains_under_load(replicated: ReplicatedService, embedding: np.ndarray) -> None:
    def bits(images: list[GeneratedImage]) -> list[bytes]:
        return [image.image.tobytes() for image in images]

    async def drain() -> None:
        replicated.replicas[0].process.send_signal(signal.SIGTERM)

    async def die() -> None:
        await asyncio.to_thread(replicated.kill, 1)

    with Client(f"127.0.0.1:{replicated.replicas[0].grpc_port}") as direct:
        expected = bits(direct.generate(embedding, range(24), steps=60))
    # The proxy alone repeats: the client would not.
    assert bits(asyncio.run(under_load(replicated.envoy.url, embedding, die, ONCE))) == expected

    with Client(replicated.envoy.url) as client, Client(f"127.0.0.1:{replicated.replicas[0].grpc_port}") as survivor:
        for event in client.stream(embedding, 1, steps=1000):
            if isinstance(event, Progress):
                break
        assert wait_until(lambda: idle(survivor)) < 10.0, "a cancel ends the work"

    replicated.replicas[1] = again = Serving(replicated.repository, at=replicated.replicas[1].ports)
    wait_until(lambda: {len(ports) for ports in replicated.envoy.in_ring().values()} == {2}, timeout_s=90, pause_s=0.2)
    assert bits(asyncio.run(under_load(replicated.envoy.url, embedding, drain, ONCE))) == expected
    assert replicated.replicas[0].end() == 0, "the work in it was finished"
    assert again.ready()
