"""Errors that are not a stage's: Triton's own and gRPC's, which have a status and a text and no code.

A few causes share one status, and only Triton's or gRPC's own words tell them apart: these are compared from the
beginning of the text. What a caller writes is not read: models, names and shapes are checked before Triton sees them
(`tensor_checks`), and the request id, which Triton puts in front, is taken off as the literal that was sent.
"""

from __future__ import annotations

import logging

from id3pm.serving.launcher.health import Health
from id3pm.serving.protocol.served_models import SIGNATURES
from id3pm.serving.protocol.status import RefusedError, code_of_grpc, cut, without_paths

logger = logging.getLogger(__name__)
_ENSEMBLES = tuple(f"in ensemble '{model}', " for model in SIGNATURES)
# INTERNAL: a Python stub that has died, which the supervisor replaces; a connection that broke.
_LOST = ("Stub process '", "Received RST_STREAM")
# INTERNAL: a tensor finds no room in /dev/shm until others are done.
_NO_MEMORY = (
    "Failed to increase the shared memory pool",
    "Failed to initialize shared memory pool",
    "Failed to allocate",
)
# A stage answers with these in an envelope. Without one, the process at the other end goes, has gone or is not there.
_GONE = ("UNAVAILABLE", "CANCELLED", "UNKNOWN")


def triton_error(health: Health, status: str, message: str, request_id: str = "") -> RefusedError:
    """What a caller gets of an error of Triton's.

    Args:
        health: Of the Triton process: it is told where a request was lost.
        status: Name of the gRPC status.
        message: Triton's text.
        request_id: Of the request.
    """
    message = _bare(cut(message), request_id)
    if status in _GONE or (status == "INTERNAL" and message.startswith(_LOST)):
        return health.unavailable()
    if status == "INTERNAL" and message.startswith(_NO_MEMORY):
        logger.error("a request was refused: /dev/shm is full; give it more, in a container by --shm-size")
        return RefusedError(
            "unavailable", "the server has no shared memory left for this: retry after 1 s", retry_after_s=1.0
        )
    return RefusedError(code_of_grpc(status), without_paths(message))


def _bare(message: str, request_id: str) -> str:
    """A message without what Triton puts before it: the ensembles that it came through, and the request's id."""
    before = (*_ENSEMBLES, *(f"[request id: {name}] " for name in (request_id, "<id_unknown>")))
    while (found := next((text for text in before if message.startswith(text)), None)) is not None:
        message = message.removeprefix(found)
    return message
