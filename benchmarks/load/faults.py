"""Faults under load: one after another against a running `id3pm serve`, counting images that were lost or wrong.

Every request asks for a known image, by a client with its default settings. Lost: its caller got no image in the end.
Wrong: the image is not the known one.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import ServerError
from id3pm_client import AsyncClient, InternalServerError, Retry
from load.arrivals import Arrival
from load.faulty_repository import STAGE, FaultyRepository, marked_vector
from load.generator import Generator
from load.identities import PHOTO
from load.proxy import Proxy
from load.records import Record
from load.running import Traffic, say
from load.service import ServiceProcess
from report import table

TIMEOUT_S = 300.0  # the client's default
PHOTOGRAPHS = 8
FACE_STAGE, SR_STAGE = "face_embedding", "super_resolution"
WORK_S, LOOK_S = 20.0, 1.0
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


def inject_all(
    repository: Path, out: Path, traffic: Traffic, *, rate: float, seconds: float, seed: int, faults: Sequence[str]
) -> dict[str, Any]:
    """Runs the faults in turn, each under its own load, JSON-ready.

    Args:
        repository: Models and engines.
        out: For the copy of the repository and the log.
        traffic: What is sent: only requests for known images.
        rate: Requests a second.
        seconds: During which requests are sent to meet each fault, which comes after a third of them.
        seed: Of the arrivals.
        faults: Names in `FAULTS`.
    """
    copy = FaultyRepository(out / "faulty_repository", repository)
    disk: Path | None = None
    with contextlib.ExitStack() as stack:
        reason = why_no_small_disk()
        if reason is None:
            disk = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="id3pm-small-disk-")))
        service = ServiceProcess(copy.folder, out / "faults.log", small_disk=disk)
        stack.callback(service.kill)
        service.start()
        rows = []
        for number, name in enumerate(faults):
            if FAULTS[name] in (full_disk, kill_stub_on_full_disk) and reason is not None:
                rows.append({"fault": name, "not_injected": reason})
                continue
            say(f"{name}: {FAULTS[name].__doc__}")
            arrivals = traffic.arrivals(rate, max(int(rate * seconds), 1), seed=seed + number, known=1.0)
            rows.append({"fault": name, **_inject(service, copy, FAULTS[name], traffic, arrivals, seconds / 3)})
            say(f"  lost {rows[-1]['lost']}, wrong {rows[-1]['wrong']}")
    return {"rate": rate, "seconds": seconds, "rows": rows}


def _inject(
    service: ServiceProcess,
    copy: FaultyRepository,
    fault: Fault,
    traffic: Traffic,
    arrivals: Sequence[Arrival],
    after_s: float,
) -> dict[str, Any]:
    """One fault under load, after so many seconds; the service is as before at the end."""
    records, at_s, problem = asyncio.run(_under_load(service, copy, fault, traffic, arrivals, after_s))
    copy.recover()
    if not service.ready:
        problem = f"{problem}; the service did not come back".removeprefix("; ")
        service.kill()
        service.start()
    return _counted(records, at_s, problem)


async def _under_load(
    service: ServiceProcess,
    copy: FaultyRepository,
    fault: Fault,
    traffic: Traffic,
    arrivals: Sequence[Arrival],
    after_s: float,
) -> tuple[list[Record], float, str]:
    """The records, seconds from the first arrival to the fault, and what went wrong with the injection."""
    async with Proxy(service.grpc_url) as proxy:
        generator = Generator(proxy.url, traffic.identities, traffic.known, retry=Retry(), timeout_s=TIMEOUT_S)
        start = time.monotonic()
        load = asyncio.create_task(generator.run(arrivals))
        await asyncio.sleep(after_s)
        problem = ""
        if not await _at_work(service, SR_STAGE if fault is kill_sr_stub else STAGE, generator):
            problem = f"no request was in flight within {WORK_S:g} s"
        at_s = time.monotonic() - start
        try:
            await fault(Scene(service, copy, proxy, traffic.identities))
        except (LookupError, OSError, RuntimeError, subprocess.TimeoutExpired) as error:
            problem = f"{type(error).__name__}: {error}"
        return await load, at_s, problem


async def _at_work(service: ServiceProcess, stage: str, generator: Generator) -> bool:
    """Waits until images are in hand there: a fault that meets an idle service proves little.

    Where each is over too soon to be seen, as on a busy machine where asking takes longer: until one is in flight.
    """
    start = time.monotonic()
    while (waited := time.monotonic() - start) < WORK_S:
        if waited > LOOK_S and generator.in_flight:
            return True
        with contextlib.suppress(ServerError):  # it may not be ready for another reason yet
            if (await asyncio.to_thread(service.ping, stage))["active"]:
                return True
        await asyncio.sleep(0.02)
    return False


def _counted(records: Sequence[Record], at_s: float, problem: str) -> dict[str, Any]:
    after = sorted(record.end_s for record in records if record.outcome == "ok" and record.sent_s >= at_s)
    ok = [record for record in records if record.outcome == "ok"]
    return {
        "requests": len(records),
        "lost": len(records) - len(ok),
        "wrong": sum(record.wrong for record in records),
        "next_image_s": after[0] - at_s if after else None,
        "slowest_s": max((record.latency_s for record in ok), default=None),
        "problem": problem,
        "errors": sorted({record.error for record in records if record.error})[:5],
    }


def why_no_small_disk() -> str | None:
    """Why this machine cannot give a process a file system of its own; `None` where it can."""
    if not shutil.which("unshare"):
        return "there is no unshare(1)"
    test = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    done = subprocess.run(test, capture_output=True, text=True, timeout=10)
    return None if done.returncode == 0 else done.stderr.strip() or "unshare failed"


def passed(results: Mapping[str, Any]) -> bool:
    """Whether every fault was injected, or could not be on this machine, and nothing was lost or wrong."""
    done = [row for row in results["rows"] if "not_injected" not in row]
    return bool(done) and not any(row["lost"] or row["wrong"] or row["problem"] for row in done)


def markdown(results: Mapping[str, Any]) -> list[str]:
    """The table."""
    rows = []
    for row in results["rows"]:
        if "not_injected" in row:
            rows.append([row["fault"], f"not injected: {row['not_injected']}", "", "", "", ""])
            continue
        slowest, following = row["slowest_s"], row["next_image_s"]
        rows.append(
            [
                row["fault"] + (f" ({row['problem']})" if row["problem"] else ""),
                str(row["requests"]),
                str(row["lost"]),
                str(row["wrong"]),
                "" if following is None else f"{following:.1f}",
                "" if slowest is None else f"{slowest:.1f}",
            ]
        )
    lines = [f"{results['rate']:.3g} requests a second, {results['seconds']:.0f} s for each fault.", ""]
    header = ["fault", "requests", "lost", "wrong", "next image, s after the fault", "slowest request, s"]
    return lines + table(header, rows)
