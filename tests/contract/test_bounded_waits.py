"""No wait in the packages is without a limit: what waits for an event, an answer, a thread or a process says how long.

The scan knows the waits of the standard library and of gRPC by name. `with lock:` is not one of them: locks guard a few
statements, none of which waits. A wait that is limited by something else stands in `LIMITED_ELSEWHERE`, with its limit.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("client/src/id3pm_client", "id3pm")
# Method or function: how many positional arguments it has at least where one of them is the limit.
WAITS = {
    "wait": 1,
    "wait_for": 2,
    "join": 1,
    "get": 1,
    "acquire": 2,
    "result": 1,
    "communicate": 2,
    "select": 4,
    "urlopen": 3,
    "create_connection": 2,
    "HTTPConnection": 3,
    "HTTPSConnection": 3,
    "as_completed": 2,
    "wait_for_termination": 1,
    "wait_for_ready": 1,
    "gather": 10**6,  # has no limit of its own
}
OWNED = {"select": "select", "gather": "asyncio"}  # common words elsewhere
# Functions that wait for a process.
PROCESSES = ("run", "call", "check_call", "check_output")
NEVER = ("pause", "sigwait", "sigwaitinfo", "waitpid", "serve_forever", "run_forever")
LIMITS = ("timeout", "timeout_s", "timeout_ms", "timeout_seconds")
# `FILE: source of the call` -> what limits it.
LIMITED_ELSEWHERE = {
    "client/src/id3pm_client/_bench.py: asyncio.gather(*places)": "as long as asked for; each request has a time limit",
    # Loops that serve until they are told to end.
    "id3pm/page/command.py: threading.Event().wait()": "until Ctrl-C or SIGTERM",
    "id3pm/serving/gateway/gateway.py: self._stop.wait()": "the gateway listens until `stop` sets it",
    "id3pm/serving/gateway/grpc_server.py: answers.get()": "the reader of a stream puts `None` when it ends",
    "id3pm/serving/gateway/grpc_server.py: places.acquire()": "a place comes back with each answer on the same stream",
    "id3pm/serving/models/worker.py: self._jobs.get()": "a daemon thread; `close` puts `None`",
    # The callers of these have a limit, or what they wait for has.
    "id3pm/serving/gateway/sse.py: self._some.wait()": "`EventStream` waits for an event at most for a heartbeat",
    "id3pm/serving/gateway/in_flight.py: asyncio.wait([self._cancels[key].task])": "a cancel ends within `_CANCEL_S`",
    "id3pm/serving/gateway/in_flight.py: asyncio.gather(*(upstream.control(model, 'cancel', key.id, origin=origin) "
    "for model in CANCELLED_MODELS), return_exceptions=True)": "control requests have the limit `_CONTROL_S`",
    "id3pm/serving/gateway/admission.py: asyncio.wait([work])": "parses a body, whose bytes and cost are limited",
    "id3pm/serving/gateway/gateway.py: asyncio.gather(rpc.stop(limits.CLOSE_S), "
    "*(listener.close() for listener in listeners))": "`Gateway.stop` waits a few times `CLOSE_S`",
    "id3pm/serving/gateway/http_listener.py: asyncio.gather(*tasks, return_exceptions=True)": "`Gateway.stop`, too",
    "id3pm/page/app_state.py: asyncio.gather(*(run.stop() for run in self._runs.values()))": "at most `_CLOSING_S`",
    "id3pm/page/people.py: asyncio.gather(*(client.embed(each) for each in both))": "the client's `timeout_s`",
    "id3pm/page/runs.py: self._changed.wait()": "every run ends within the client's `timeout_s`, which is news",
    "id3pm/sampling/scheduler.py: self._compute_lock.acquire(self._claim)": "`compute_lock.TIMEOUT_S`",
    # Results of functions of this process that compute, for whose time there is no rule.
    "id3pm/engines/openvino_engine.py: aside.submit(start).result()": "loads a library",
    "id3pm/engines/openvino_engine.py: self._beside.get()": "there are as many requests as threads",
    "id3pm/sampling/wait_all.py: done.get()": "schedulers answer every request, at its deadline at the latest",
    # A shard takes as long as its images; each of these ends.
    "id3pm/synthetic/generators.py: concurrent.futures.as_completed(waiting)": "each image: the client's `timeout_s`",
    "id3pm/synthetic/generators.py: done.result()": "`as_completed` has said that it is done",
    "id3pm/synthetic/processes.py: wait(list(running))": "the end of a process closes its connection",
    "id3pm/synthetic/run.py: done.get()": "the end of a thread puts `None` or its error",
    "id3pm/synthetic/shard.py: candidate.picture.result()": "encodes a picture",
    "id3pm/training/demo_data.py: future.result()": "`wait` has said that it is done",
    # Not waits.
    "id3pm/serving/gateway/access_log.py: _current.get()": "a context variable",
    "id3pm/serving/gateway/http_server.py: self._context.upstreams.get()": "a property with a check",
    "id3pm/serving/gateway/sse.py: self._upstreams.get()": "a property with a check",
}


def unbounded(source: str) -> Iterator[ast.Call]:
    """The calls that wait without a limit."""
    nodes = list(ast.walk(ast.parse(source)))
    futures = any(word in source for word in ("concurrent", "run_coroutine_threadsafe"))
    wrapped = {
        id(inner)
        for call in nodes
        if isinstance(call, ast.Call) and _name(call) == "wait_for" and _is_limited(call)
        for inner in call.args[:1]
    }
    wrapped |= {
        id(inner)
        for block in nodes
        if isinstance(block, (ast.With, ast.AsyncWith))
        and any(isinstance(i.context_expr, ast.Call) and _name(i.context_expr) in TIMED_BLOCKS for i in block.items)
        for inner in ast.walk(block)
    }
    for call in nodes:
        if isinstance(call, ast.Call) and id(call) not in wrapped and _waits(call) and not _is_limited(call):
            if futures or _name(call) != "result":  # of asyncio's futures it does not wait
                yield call


TIMED_BLOCKS = ("timeout", "timeout_at", "fail_after")


def _name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _waits(call: ast.Call) -> bool:
    name = _name(call)
    owner = call.func.value if isinstance(call.func, ast.Attribute) else None
    if name in PROCESSES:
        return isinstance(owner, ast.Name) and owner.id == "subprocess"
    if name in ("get", "result", "join"):  # others of these names take an argument
        return owner is not None and not call.args and not [k for k in call.keywords if k.arg not in LIMITS]
    if name in OWNED:
        return isinstance(owner, ast.Name) and owner.id == OWNED[name]
    return name in WAITS or name in NEVER


def _is_limited(call: ast.Call) -> bool:
    name = _name(call)
    for keyword in call.keywords:
        if keyword.arg in LIMITS:
            return not (isinstance(keyword.value, ast.Constant) and keyword.value.value is None)
        if keyword.arg is None:  # **settings, which this scan cannot read
            return True
        if keyword.arg == "blocking" and isinstance(keyword.value, ast.Constant) and keyword.value.value is False:
            return True
    if name == "acquire" and call.args and isinstance(call.args[0], ast.Constant) and call.args[0].value is False:
        return True
    if name == "wait" and getattr(getattr(call.func, "value", call.func), "id", "") in MODULES:
        return False  # of asyncio and concurrent.futures, whose first argument is what they wait for
    return len(call.args) >= WAITS.get(name, 10**6)


MODULES = ("asyncio", "futures", "wait")  # or its function by name


@functools.cache
def found(package: str) -> dict[str, int]:
    return {
        f"{path.relative_to(ROOT)}: {ast.unparse(call)}": call.lineno
        for path in sorted((ROOT / package).rglob("*.py"))
        for call in unbounded(path.read_text())
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_no_wait_is_without_a_limit(package: str) -> None:
    more = {call: line for call, line in found(package).items() if call not in LIMITED_ELSEWHERE}
    assert not more, "give each a timeout, or name in LIMITED_ELSEWHERE what limits it"


def test_every_exception_is_still_needed() -> None:
    there = {call for package in PACKAGES for call in found(package)}
    assert set(LIMITED_ELSEWHERE) <= there


@pytest.mark.parametrize(
    "source",
    [
        "answers.get()",
        "event.wait()",
        "thread.join()",
        "import concurrent.futures\nfuture.result()",
        "slots.acquire()",
        "process.communicate()",
        "subprocess.run(['ls'])",
        "urllib.request.urlopen(url)",
        "http.client.HTTPConnection(host)",
        "event.wait(timeout=None)",
        "signal.pause()",
        "async def f():\n await asyncio.wait(tasks)",
        "async def f():\n await asyncio.gather(a, b)",
        "async def f():\n await event.wait()",
        "select.select(a, b, c)",
    ],
)
def test_the_scan_finds_waits_without_a_limit(source: str) -> None:
    assert len(list(unbounded(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "answers.get(timeout=2)",
        "settings.get('key')",
        "event.wait(1.0)",
        "', '.join(words)",
        "subprocess.run(['ls'], timeout=5)",
        "slots.acquire(blocking=False)",
        "async def f():\n await asyncio.wait_for(event.wait(), 5.0)",
        "async def f():\n async with asyncio.timeout(5):\n  await event.wait()",
    ],
)
def test_the_scan_passes_waits_with_a_limit(source: str) -> None:
    assert not list(unbounded(source))
