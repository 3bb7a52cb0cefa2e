"""Every limit of the service in one table: bytes, counts and seconds, of ports, queues and supervision.

`python -m id3pm.serving.protocol.limits` prints the table of deploy/README.md; a test compares the two.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import Final

from id3pm.formats.images import MAX_DECODING_S, MAX_PIXELS, MAX_SCANS

_KIB, _MIB, _GIB = 2**10, 2**20, 2**30

# Bodies
MAX_BODY: Final = 64 * _MIB
MAX_BODIES: Final = _GIB
BODY_S: Final = 120.0
WRITE_S: Final = 60.0
MAX_SMALL_BODY: Final = 256 * _KIB
PARSE_S: Final = 30.0
TURN_S: Final = 5.0
SOON_S: Final = 2.0
MAX_PARTS: Final = 2**19  # what reading JSON takes its time for; forty 64 px images have so many
MAX_MESSAGE_PARTS: Final = 4096
MAX_QUESTION: Final = 64 * _KIB
MAX_NUMBERS: Final = 2**20  # sixteen 64 px images have 196 608
MAX_DIMS: Final = 8
MAX_STRINGS: Final = 64  # the longest tensor has one for each image, or the words of a control request
MAX_VECTOR: Final = 512
MAX_TEXT: Final = 4 * _KIB
MAX_ID: Final = 256
MAX_PARAMETERS: Final = 256 * _KIB
MAX_REQUEST_PARAMETERS: Final = 64
MAX_NAME: Final = 64
MAX_TIMEOUT_US: Final = 10**12  # a request without a timeout may take any time
MAX_MESSAGE: Final = 1500
# Requests
MAX_WORK: Final = 512  # more than both stages keep waiting
MAX_QUESTIONS: Final = 1024
MAX_CALLS: Final = 4096
MAX_CALLS_OF_ONE: Final = 512
MAX_STREAMS: Final = 32  # each may hold one message that is on its way
MAX_STREAMS_OF_ONE: Final = 24
STREAM_IDLE_S: Final = 600.0
MAX_HEALTH_WATCHES: Final = 128
MAX_ON_ONE_STREAM: Final = 64
MAX_WATCHERS: Final = 256
MAX_WATCH_S: Final = 5.0
HEARTBEAT_S: Final = 10.0  # well below the minute after which proxies close a silent connection
KEPT_S: Final = 60.0
KEPT_BYTES: Final = 32 * _MIB
# Photographs
MAX_PHOTO_BYTES: Final = 32 * _MIB
MAX_WAITING_PHOTOS: Final = 256
MAX_WAITING_PHOTO_BYTES: Final = 256 * _MIB
MAX_WAITING_PHOTO_S: Final = 30.0
# Connections
MAX_HTTP_CONNECTIONS: Final = 4096
MAX_GRPC_CONNECTIONS: Final = 1024
MAX_METRICS_CONNECTIONS: Final = 64
FIRST_REQUEST_S: Final = 10.0
KEEPALIVE_S: Final = 75.0
GRPC_IDLE_S: Final = 600.0
PING_S: Final = 20.0
PONG_S: Final = 10.0
# Supervision and the end
MAX_DESCRIPTORS: Final = 16_384
MIN_DESCRIPTORS: Final = 256
RESERVED_DESCRIPTORS: Final = 192
MAX_FAILED_STARTS: Final = 5
DRAIN_S: Final = 60.0
EXIT_S: Final = 6.0
CLOSE_S: Final = 1.0


@dataclasses.dataclass(frozen=True)
class Limit:
    """One row of the table.

    Attributes:
        value: The limit.
        unit: Of the value; empty for a number of things.
        meaning: What is limited.
        beyond: What happens beyond it.
        option: What changes it, if anything.
    """

    value: float
    unit: str
    meaning: str
    beyond: str
    option: str = ""

    def shown(self) -> str:
        """The limit with its unit, for people."""
        if self.unit != "bytes":
            number = f"{self.value:.0f}" if self.value == int(self.value) else f"{self.value:g}"
            return f"{number} {self.unit}".rstrip()
        for size, unit in ((_GIB, "GiB"), (_MIB, "MiB"), (_KIB, "KiB")):
            if self.value >= size and self.value % size == 0:
                return f"{self.value // size:g} {unit}"
        return f"{self.value:g} bytes"


LIMITS: Final[dict[str, tuple[Limit, ...]]] = {
    "Bodies": (
        Limit(MAX_BODY, "bytes", "an HTTP body, unpacked, or a gRPC message", "413", "--max-body"),
        Limit(MAX_BODIES, "bytes", "all bodies in flight, with what parsing makes of them", "429", "--max-bodies"),
        Limit(MAX_SMALL_BODY, "bytes", "a body that is parsed at once; larger ones one at a time", "a thread"),
        Limit(PARSE_S, "s", "a large body waits for its turn to be parsed", "429"),
        Limit(BODY_S, "s", "arrival of a body", "408"),
        Limit(WRITE_S, "s", "a caller takes nothing of its answer", "connection closed"),
        Limit(TURN_S, "s", "a gRPC message waits for its place to arrive", "429"),
        Limit(SOON_S, "s", "a gRPC message arrives while others wait for its place", "429"),
        Limit(MAX_PARTS, "", "commas and backslashes of JSON", "400"),
        Limit(MAX_MESSAGE_PARTS, "", "fields of a gRPC message, those of its inputs included", "400"),
        Limit(MAX_QUESTION, "bytes", "a gRPC message that asks for no work", "413"),
        Limit(MAX_NUMBERS, "", "numbers of a tensor", "400"),
        Limit(MAX_DIMS, "", "dimensions of a tensor", "400"),
        Limit(MAX_STRINGS, "", "strings of a tensor", "400"),
        Limit(MAX_VECTOR, "", "numbers of an attribute vector", "400"),
        Limit(MAX_TEXT, "bytes", "the text of an option, a word of `control`", "400"),
        Limit(MAX_ID, "", "characters of a request id", "400"),
        Limit(MAX_PARAMETERS, "bytes", "all request parameters together, as JSON", "400"),
        Limit(MAX_REQUEST_PARAMETERS, "", "request parameters", "400"),
        Limit(MAX_NAME, "", "characters of a parameter's name", "400"),
        Limit(MAX_TIMEOUT_US, "us", "a request's `timeout`", "400"),
        Limit(MAX_MESSAGE, "", "characters of an error's text", "cut"),
    ),
    "Requests": (
        Limit(MAX_WORK, "", "requests for work in flight", "429"),
        Limit(MAX_QUESTIONS, "", "questions in flight", "429"),
        Limit(MAX_CALLS, "", "gRPC calls open", "RESOURCE_EXHAUSTED"),
        Limit(MAX_CALLS_OF_ONE, "", "gRPC calls open on one connection", "the caller's library waits"),
        Limit(MAX_STREAMS, "", "gRPC streams open", "the longest idle one is ended; where none is, 429"),
        Limit(MAX_STREAMS_OF_ONE, "", "of one caller, without tokens of one address", "the same, of its own"),
        Limit(STREAM_IDLE_S, "s", "a gRPC stream without a request", "ended with DEADLINE_EXCEEDED"),
        Limit(MAX_HEALTH_WATCHES, "", "`grpc.health.v1.Health/Watch` open", "429"),
        Limit(MAX_ON_ONE_STREAM, "", "unanswered requests of one gRPC stream", "the next is not read"),
        Limit(MAX_WATCHERS, "", "`watch` and `progress` that wait, of a stage", "answered at once, without pictures"),
        Limit(MAX_WATCH_S, "s", "a `watch` without a new step", "answered"),
        Limit(HEARTBEAT_S, "s", "silence of an event stream", "a comment line is sent"),
        Limit(KEPT_S, "s", "an answer is kept for a request that is sent again", "computed again"),
        Limit(KEPT_BYTES, "bytes", "answers that a stage keeps", "the oldest are dropped"),
    ),
    "Photographs": (
        Limit(MAX_PHOTO_BYTES, "bytes", "a photograph's file", "400"),
        Limit(MAX_PIXELS, "", "pixels of a photograph", "400"),
        Limit(MAX_SCANS, "", "passes over the picture in a JPEG; encoders make 10", "400"),
        Limit(MAX_DECODING_S, "s", "a processor decodes a photograph; 40 megapixels take 2 s", "400"),
        Limit(MAX_WAITING_PHOTOS, "", "requests with photographs that wait", "503"),
        Limit(MAX_WAITING_PHOTO_BYTES, "bytes", "photographs that wait", "503"),
        Limit(MAX_WAITING_PHOTO_S, "s", "work that the photographs in flight are expected to make", "503"),
    ),
    "Connections": (
        Limit(MAX_HTTP_CONNECTIONS, "", "HTTP connections, half of them from one address", "see below the table"),
        Limit(MAX_GRPC_CONNECTIONS, "", "gRPC connections, half of them from one address", "the same"),
        Limit(MAX_METRICS_CONNECTIONS, "", "connections to the metrics, half of them from one address", "the same"),
        Limit(FIRST_REQUEST_S, "s", "handshake and first request of a connection", "closed"),
        Limit(GRPC_IDLE_S, "s", "a gRPC connection without a call", "closed; clients open another by themselves"),
        Limit(KEEPALIVE_S, "s", "an HTTP connection between two requests", "closed"),
        Limit(PING_S, "s", "silence of a gRPC connection with calls", "asked for a sign of life"),
        Limit(PONG_S, "s", "answer to that", "closed"),
    ),
    "Supervision and the end": (
        Limit(MAX_DESCRIPTORS, "", "file descriptors, where `ulimit -Hn` allows so many", "fewer connections"),
        Limit(MIN_DESCRIPTORS, "", "fewest file descriptors", "no start"),
        Limit(RESERVED_DESCRIPTORS, "", "file descriptors that no connection gets", "kept for supervision"),
        Limit(MAX_FAILED_STARTS, "", "failed starts of Triton in a row", "exit status 1"),
        Limit(DRAIN_S, "s", "work in flight after SIGTERM", "broken off", "--drain-timeout"),
        Limit(EXIT_S, "s", "Triton's own end after that", "killed"),
        Limit(CLOSE_S, "s", "closing of the connections after that", "cut"),
    ),
}  # fmt: skip


def markdown() -> str:
    """The table for deploy/README.md."""
    lines = ["| limit | of | beyond it | option |", "|---|---|---|---|"]
    for heading, rows in LIMITS.items():
        lines.append(f"| **{heading}** | | | |")
        for row in rows:
            option = f"`{row.option}`" if row.option else ""
            lines.append(f"| {row.shown()} | {row.meaning} | {row.beyond} | {option} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(markdown() + "\n")
