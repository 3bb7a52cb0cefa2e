"""The faults: what each does to a running service, by name."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from id3pm_client import AsyncClient, InternalServerError
from load.faulty_repository import STAGE, FaultyRepository, marked_vector
from load.identities import PHOTO
from load.proxy import Proxy
from load.service import ServiceProcess

PHOTOGRAPHS = 8
FACE_STAGE, SR_STAGE = "face_embedding", "super_resolution"
CUT_S, SLOW_S, SLOW_FOR_S = 3.0, 1.0, 5.0


class Scene(NamedTuple):
    """What a fault is done to."""

    service: ServiceProcess
    repository: FaultyRepository
    proxy: Proxy
    identities: NDArray[np.float32]


Fault = Callable[[Scene], Awaitable[None]]


async def kill_stub(scene: Scene) -> None:
    """SIGKILL to the Python process of the 64 px stage."""
    scene.service.stub(STAGE).send_signal(signal.SIGKILL)


async def kill_sr_stub(scene: Scene) -> None:
    """SIGKILL to the Python process of super-resolution."""
    scene.service.stub(SR_STAGE).send_signal(signal.SIGKILL)


async def stop_stub(scene: Scene) -> None:
    """SIGSTOP to the Python process of the 64 px stage: it lives and never answers."""
    scene.service.stub(STAGE).send_signal(signal.SIGSTOP)


async def kill_server(scene: Scene) -> None:
    """SIGKILL to tritonserver."""
    scene.service.server().send_signal(signal.SIGKILL)


async def slow_engine(scene: Scene) -> None:
    """Every step of the 64 px stage takes a second more, for 5 seconds."""
    scene.repository.order(f"slow {SLOW_S}")
    await asyncio.sleep(SLOW_FOR_S)
    scene.repository.recover()


async def failing_engine(scene: Scene) -> None:
    """One step of the 64 px stage raises an exception; when it is tried again, it works."""
    scene.repository.order("fail")


async def failing_row(scene: Scene) -> None:
    """Every step with one certain image raises an exception: its caller must be told, and the others' images come."""
    async with AsyncClient(scene.proxy.url) as client:
        marked = marked_vector(scene.identities.shape[1])
        answers = await asyncio.gather(*(client.generate(marked, 0) for _ in range(2)), return_exceptions=True)
    for answer in answers:
        if not isinstance(answer, InternalServerError) or not re.search(r"the engine failed at step \d", str(answer)):
            raise RuntimeError(f"the image that cannot be made was answered {answer!r}")


async def stop_face_stub(scene: Scene) -> None:
    """SIGSTOP to the Python process of the face stage, with photographs under way."""
    await _with_photographs(scene, signal.SIGSTOP)


async def kill_face_stub(scene: Scene) -> None:
    """SIGKILL to the Python process of the face stage, with photographs under way."""
    await _with_photographs(scene, signal.SIGKILL)


async def _with_photographs(scene: Scene, number: signal.Signals) -> None:
    """Sends photographs and the signal; the ID vectors must come, and be those of before."""
    async with AsyncClient(scene.proxy.url) as client:
        expected = (await client.embed(PHOTO)).vector
        tasks = [asyncio.create_task(client.embed(PHOTO)) for _ in range(PHOTOGRAPHS)]
        await asyncio.sleep(0.03)
        scene.service.stub(FACE_STAGE).send_signal(number)
        found = await asyncio.gather(*tasks, return_exceptions=True)
    lost = [answer for answer in found if isinstance(answer, BaseException)]
    if lost or not all(np.array_equal(answer.vector, expected) for answer in found):
        raise RuntimeError(f"of {len(found)} photographs {len(lost)} were lost ({lost[:1]}), or had other vectors")


async def full_disk(scene: Scene) -> None:
    """The file system with both logs and the temporary files is full from now on."""
    await asyncio.to_thread(scene.service.fill_disk)


async def kill_stub_on_full_disk(scene: Scene) -> None:
    """The same, and then SIGKILL to the Python process of the 64 px stage: what is reported cannot be written."""
    await full_disk(scene)
    await kill_stub(scene)


async def restart(scene: Scene) -> None:
    """SIGTERM to `id3pm serve`; when it has ended, it is started again."""
    await asyncio.to_thread(scene.service.terminate)
    await asyncio.to_thread(scene.service.start)


async def network_cut(scene: Scene) -> None:
    """All connections between client and server break; new ones fail for 3 seconds."""
    scene.proxy.cut()
    await asyncio.sleep(CUT_S)
    scene.proxy.mend()


FAULTS: Mapping[str, Fault] = {
    "stub killed": kill_stub,
    "super-resolution stub killed": kill_sr_stub,
    "stub stopped": stop_stub,
    "tritonserver killed": kill_server,
    "slow engine": slow_engine,
    "exception in the engine, once": failing_engine,
    "exception for one image, always": failing_row,
    "face stub stopped": stop_face_stub,
    "face stub killed": kill_face_stub,
    "SIGTERM and restart": restart,
    "network cut": network_cut,
    "disk full": full_disk,
    "stub killed, disk full": kill_stub_on_full_disk,
}
