"""Readiness and memory of a running `id3pm serve` while it gets the largest bodies that it allows.

    id3pm serve &
    python benchmarks/large_bodies.py --pid $!

Bodies come from processes of their own with a low priority; readiness is asked for every 20 ms. Prints a Markdown
table.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

import click
import grpc

MIB = 2**20
GENERATE = "/v2/models/id3pm_png/generate"
INFER = "/inference.GRPCInferenceService/ModelInfer"


def _wide() -> bytes:
    return gzip.compress(b'{"preset": "' + b"x" * (62 * MIB) + "\U0001f600".encode() + b'"}', 1)


def _ascii() -> bytes:
    return gzip.compress(b'{"preset": "' + b"x" * (62 * MIB) + b'"}', 1)


def _numbers() -> bytes:
    return b'{"embedding": [' + b"0.125," * 500_000 + b"0]}"


def _fields() -> bytes:
    return b"\x2a\x00" * (30 * MIB)


def _raw() -> bytes:
    size, length = 60 * MIB, b""
    while size > 0x7F:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return b"\x0a\x05id3pm\x3a" + length + bytes([size]) + bytes(60 * MIB)


BODIES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "gzip of 62 MiB of text with an emoji": ("gzip", _wide),
    "gzip of 62 MiB of ASCII": ("gzip", _ascii),
    "JSON of 500 000 numbers": ("plain", _numbers),
    "gRPC message of 30 million empty inputs": ("grpc", _fields),
    "gRPC message with 60 MiB of raw content": ("grpc", _raw),
}


def send(ports: tuple[int, int], way: str, make: Callable[[], bytes], times: int, start: float) -> None:
    """Sends a body some times, one after the other, whatever is answered."""
    os.nice(15)  # as if from another machine
    body = make()
    time.sleep(max(0.0, start - time.monotonic()))
    for _ in range(times):
        if way == "grpc":
            direct = [("grpc.enable_http_proxy", 0)]
            channel = grpc.insecure_channel(f"127.0.0.1:{ports[1]}", options=direct)
            with channel, contextlib.suppress(grpc.RpcError):
                channel.unary_unary(INFER)(body, timeout=60)
            continue
        connection = http.client.HTTPConnection("127.0.0.1", ports[0], timeout=60)
        with contextlib.suppress(OSError):
            connection.request("POST", GENERATE, body, {"Content-Encoding": "gzip"} if way == "gzip" else {})
            connection.getresponse().read()
        connection.close()


def readiness(port: int) -> float:
    """Seconds until readiness is answered, on a new connection."""
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/v2/health/ready")
    if connection.getresponse().status != 200:
        raise click.ClickException("the service is not ready")
    connection.close()
    return time.monotonic() - began


def resident(pid: int) -> int:
    """Bytes of memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@click.command()
@click.option("--pid", type=int, required=True, help="Process id of `id3pm serve`, for its memory.")
@click.option("--http-port", default=8000, show_default=True)
@click.option("--grpc-port", default=8001, show_default=True)
@click.option("--senders", default=6, show_default=True, help="Bodies at a time.")
@click.option("--times", default=3, show_default=True, help="Bodies of each sender.")
def main(pid: int, http_port: int, grpc_port: int, senders: int, times: int) -> None:
    """Print how long readiness took at most, and how much memory the gateway had, for each kind of body."""
    processes = multiprocessing.get_context("spawn")
    click.echo(f"load average before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    click.echo(f"| bodies, {senders} at a time | readiness, s, median | longest | gateway, MiB at most |")
    click.echo("| --- | --- | --- | --- |")
    for name, (way, make) in {"none": ("", bytes), **BODIES, "none, afterwards": ("", bytes)}.items():
        arguments = ((http_port, grpc_port), way, make, times, time.monotonic() + 6.0)
        workers = [processes.Process(target=send, args=arguments) for _ in range(senders if way else 0)]
        for worker in workers:
            worker.start()
        waits, most, end = [], 0, time.monotonic() + 8.0
        while time.monotonic() < end or any(worker.is_alive() for worker in workers):
            waits.append(readiness(http_port))
            most = max(most, resident(pid))
            time.sleep(0.02)
        for worker in workers:
            worker.join(timeout=60)
        waits.sort()
        click.echo(f"| {name} | {waits[len(waits) // 2]:.3f} | {waits[-1]:.2f} | {most / MIB:.0f} |")


if __name__ == "__main__":
    main()
