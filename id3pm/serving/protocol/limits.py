"""Every limit of the service in one table: bytes, counts and seconds, of ports, queues and supervision.

`python -m id3pm.serving.protocol.limits` prints the table of deploy/README.md; a test compares the two.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import TypeVar

from id3pm.formats.photo_decoding import MAX_DECODING_S, MAX_PIXELS, MAX_SCANS

_KIB, _MIB, _GIB = 2**10, 2**20, 2**30
Number = TypeVar("Number", int, float)


@dataclasses.dataclass(frozen=True)
class Limit:
    """One row of the table.

    Attributes:
        value: The limit.
        unit: Unit of the value; empty for a count.
        meaning: What is limited.
        beyond: Result of exceeding it.
        option: Command-line option that changes it, if any.
    """

    value: float
    unit: str
    meaning: str
    beyond: str
    option: str = ""

    def shown(self) -> str:
        """The limit with its unit, for the documentation."""
        if self.unit != "bytes":
            number = f"{self.value:.0f}" if self.value == int(self.value) else f"{self.value:g}"
            return f"{number} {self.unit}".rstrip()
        for size, unit in ((_GIB, "GiB"), (_MIB, "MiB"), (_KIB, "KiB")):
            if self.value >= size and self.value % size == 0:
                return f"{self.value // size:g} {unit}"
        return f"{self.value:g} bytes"


LIMITS: dict[str, list[Limit]] = {}
"""The rows below, by heading."""


def _heading(text: str) -> None:
    LIMITS[text] = []


def _limit(value: Number, unit: str, meaning: str, beyond: str, option: str = "") -> Number:
    """The value, which becomes a row under the last heading."""
    LIMITS[next(reversed(LIMITS))].append(Limit(value, unit, meaning, beyond, option))
    return value


_heading("Bodies")
MAX_BODY = _limit(64 * _MIB, "bytes", "an HTTP body, unpacked, or a gRPC message", "413", "--max-body")
MAX_BODIES = _limit(_GIB, "bytes", "all bodies in flight, with the memory of their parsing", "429", "--max-bodies")
MAX_SMALL_BODY = _limit(
    256 * _KIB, "bytes", "a body that is parsed in the event loop; larger ones one at a time", "parsed in a thread"
)
PARSE_S = _limit(30.0, "s", "a large body waits to be parsed", "429")
BODY_S = _limit(120.0, "s", "arrival of a body", "408")
WRITE_S = _limit(60.0, "s", "a caller reads nothing of its answer", "connection closed")
TURN_S = _limit(5.0, "s", "a gRPC message waits for a place", "429")
SOON_S = _limit(2.0, "s", "a gRPC message arrives while others wait for a place", "429")
# They determine the time to parse JSON; forty 64 px images have this many.
MAX_PARTS = _limit(2**19, "", "commas and backslashes of JSON", "400")
MAX_MESSAGE_PARTS = _limit(4096, "", "fields of a gRPC message, those of its inputs included", "400")
MAX_QUERY = _limit(64 * _KIB, "bytes", "a gRPC message that asks for no work", "413")
# Sixteen 64 px images have 196 608.
MAX_NUMBERS = _limit(2**20, "", "numbers of a tensor", "400")
MAX_DIMS = _limit(8, "", "dimensions of a tensor", "400")
# The longest tensor has one for each image, or the words of a control request.
MAX_STRINGS = _limit(64, "", "strings of a tensor", "400")
MAX_VECTOR = _limit(512, "", "numbers of an attribute vector", "400")
MAX_TEXT = _limit(4 * _KIB, "bytes", "the text of an option, a word of `control`", "400")
MAX_ID = _limit(256, "", "characters of a request id", "400")
MAX_PARAMETERS = _limit(256 * _KIB, "bytes", "all request parameters together, as JSON", "400")
MAX_REQUEST_PARAMETERS = _limit(64, "", "request parameters", "400")
MAX_NAME = _limit(64, "", "characters of a parameter's name", "400")
# A request without a timeout may take any time.
MAX_TIMEOUT_US = _limit(10**12, "us", "a request's `timeout`", "400")
MAX_MESSAGE = _limit(1500, "", "characters of an error's text", "cut")

_heading("Requests")
# More than the queues of both stages.
MAX_WORK = _limit(512, "", "requests for work in flight", "429")
MAX_QUERIES = _limit(1024, "", "queries in flight", "429")
MAX_CALLS = _limit(4096, "", "gRPC calls open", "RESOURCE_EXHAUSTED")
MAX_CALLS_OF_ONE = _limit(512, "", "gRPC calls open on one connection", "the caller's library waits")
# Each may hold one arriving message.
MAX_STREAMS = _limit(32, "", "gRPC streams open", "the longest idle one is ended; if none is idle, 429")
MAX_STREAMS_OF_ONE = _limit(
    24, "", "gRPC streams of one caller, without tokens of one address", "the same, among its own"
)
STREAM_IDLE_S = _limit(600.0, "s", "a gRPC stream without a request", "ended with DEADLINE_EXCEEDED")
MAX_HEALTH_WATCHES = _limit(128, "", "`grpc.health.v1.Health/Watch` open", "429")
MAX_ON_ONE_STREAM = _limit(64, "", "unanswered requests of one gRPC stream", "the next is not read")
MAX_WATCHERS = _limit(
    256, "", "waiting `watch` and `progress` requests of a stage", "answered at once, without pictures"
)
MAX_WATCH_S = _limit(5.0, "s", "a `watch` without a new step", "answered")
# Well below the minute after which proxies close a silent connection.
HEARTBEAT_S = _limit(10.0, "s", "silence of an event stream", "a comment line is sent")
KEPT_S = _limit(60.0, "s", "an answer is kept for a request that is sent again", "computed again")
KEPT_BYTES = _limit(32 * _MIB, "bytes", "answers that a stage keeps", "the oldest are dropped")

_heading("Photographs")
MAX_PHOTO_BYTES = _limit(32 * _MIB, "bytes", "a photograph's file", "400")
_limit(MAX_PIXELS, "", "pixels of a photograph", "400")
_limit(MAX_SCANS, "", "passes over the picture in a JPEG; encoders make 10", "400")
_limit(MAX_DECODING_S, "s", "processor time to decode a photograph; 40 megapixels take 2 s", "400")
MAX_WAITING_PHOTOS = _limit(256, "", "requests with photographs that wait", "503")
MAX_WAITING_PHOTO_BYTES = _limit(256 * _MIB, "bytes", "photographs that wait", "503")
MAX_WAITING_PHOTO_S = _limit(30.0, "s", "expected work of the photographs in flight", "503")

_heading("Connections")
MAX_HTTP_CONNECTIONS = _limit(4096, "", "HTTP connections, half of them from one address", "see below the table")
MAX_GRPC_CONNECTIONS = _limit(1024, "", "gRPC connections, half of them from one address", "the same")
MAX_METRICS_CONNECTIONS = _limit(64, "", "connections to the metrics, half of them from one address", "the same")
FIRST_REQUEST_S = _limit(10.0, "s", "handshake and first request of a connection", "closed")
GRPC_IDLE_S = _limit(600.0, "s", "a gRPC connection without a call", "closed; clients reconnect automatically")
KEEPALIVE_S = _limit(75.0, "s", "an HTTP connection between two requests", "closed")
PING_S = _limit(20.0, "s", "silence of a gRPC connection with calls", "a keepalive ping is sent")
PONG_S = _limit(10.0, "s", "answer to that ping", "closed")

_heading("Supervision and shutdown")
MAX_DESCRIPTORS = _limit(16_384, "", "file descriptors, where `ulimit -Hn` allows so many", "fewer connections")
MIN_DESCRIPTORS = _limit(256, "", "fewest file descriptors", "no start")
RESERVED_DESCRIPTORS = _limit(192, "", "file descriptors that no connection gets", "kept for supervision")
MAX_FAILED_STARTS = _limit(5, "", "failed starts of Triton in a row", "exit status 1")
DRAIN_S = _limit(60.0, "s", "work in flight after SIGTERM", "cancelled", "--drain-timeout")
EXIT_S = _limit(6.0, "s", "shutdown of Triton after that", "killed")
CLOSE_S = _limit(1.0, "s", "closing of the connections after that", "cut")


def markdown() -> str:
    """The table for deploy/README.md."""
    lines = ["| limit | applies to | if exceeded | option |", "|---|---|---|---|"]
    for heading, rows in LIMITS.items():
        lines.append(f"| **{heading}** | | | |")
        for row in rows:
            option = f"`{row.option}`" if row.option else ""
            lines.append(f"| {row.shown()} | {row.meaning} | {row.beyond} | {option} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(markdown() + "\n")
