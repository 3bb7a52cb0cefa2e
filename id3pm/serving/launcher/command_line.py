"""The command line of `tritonserver`: where it listens, and what it refuses."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from id3pm.serving.launcher.control import UNIX
from id3pm.serving.launcher.runtime import TritonRuntime
from id3pm.serving.protocol.limits import EXIT_S

SOCKET_PATH = 107
"""The longest path of a socket that Linux takes, in bytes."""
_NUMBERS = {"http-port": 1, "grpc-port": 2, "metrics-port": 3}  # Triton wants different ones even where there are none
# Protocols that serving does not need, and that let a client change the server or read its data.
_RESTRICTED = "model-repository,shared-memory,trace,logging"


def command_of(
    runtime: TritonRuntime, models: Path, scratch: Path, listening: Sequence[str], trace_url: str | None
) -> list[str]:
    """The words of the command.

    Args:
        runtime: The installed Triton.
        models: The model repository.
        scratch: A folder for its files.
        listening: `addresses` or `socket_addresses`.
        trace_url: Where traces are sent; `None`: nowhere.
    """
    # A random key. Other users can read it on the command line, but they cannot reach a private server.
    locked = f"{_RESTRICTED}:id3pm-{secrets.token_hex(4)}={secrets.token_hex(16)}"
    return [
        str(runtime.binary),
        f"--model-repository={models}",
        *runtime.arguments(scratch),
        "--disable-auto-complete-config",
        f"--exit-timeout-secs={math.ceil(EXIT_S)}",
        *listening,
        "--grpc-http2-min-recv-ping-interval-without-data=1000",  # ms; else clients that ask for life are sent away
        f"--http-restricted-api={locked}",
        f"--grpc-restricted-protocol={locked}",
        *([] if Path("/proc/driver/nvidia").exists() else ["--allow-gpu-metrics=false"]),
        *([] if trace_url is None else _tracing(trace_url)),
    ]


def addresses(host: str, ports: Mapping[str, int]) -> list[str]:
    """Options for listening on a host's ports, by the names of Triton's options such as `http-port`."""
    options = [f"--{name}-address={host}" for name in ("http", "grpc", "metrics")]
    return [*options, *(f"--{option}={port}" for option, port in ports.items())]


def socket_addresses(folder: Path) -> list[str]:
    """Options for listening on Unix sockets in a folder."""
    # Triton's HTTP takes no notice of the port then, and its gRPC makes it the end of the name.
    options = [f"--{name}-address={UNIX}{folder}/{name}" for name in ("http", "grpc", "metrics")]
    return [*options, *(f"--{option}={number}" for option, number in _NUMBERS.items())]


def takes_path(folder: Path) -> bool:
    """Whether a path is one that Triton and its Python take."""
    return re.fullmatch(r"[\w./+-]+", str(folder), re.ASCII) is not None


def socket_of(folder: Path, option: str) -> str:
    """The path at which Triton listens for one of its protocols."""
    name = option.removesuffix("-port")
    return f"{folder}/{name}:{_NUMBERS[option]}" if name == "grpc" else f"{folder}/{name}"


def _tracing(url: str) -> list[str]:
    """Triton's own OpenTelemetry export: every request, with the spans of its models; continues a `traceparent`."""
    settings = ("mode=opentelemetry", f"opentelemetry,url={url}", "level=TIMESTAMPS", "rate=1")
    return [f"--trace-config={setting}" for setting in settings]
