"""Faults under load: one after another against a running `id3pm serve`, counting images that were lost or wrong.

Every request asks for a known image, by a client with its default settings. Lost: its caller got no image in the end.
Wrong: the image is not the known one.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from id3pm.errors import ServerError
from id3pm_client import Retry
from load.arrivals import Arrival
from load.fault_actions import (
    FAULTS,
    SR_STAGE,
    Fault,
    Scene,
    full_disk,
    kill_sr_stub,
    kill_stub_on_full_disk,
)
from load.faulty_repository import STAGE, FaultyRepository
from load.generator import Generator
from load.proxy import Proxy
from load.records import Record
from load.running import Traffic, say
from load.service import ServiceProcess
from report import table

TIMEOUT_S = 300.0  # the client's default
WORK_S, LOOK_S = 20.0, 1.0


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
