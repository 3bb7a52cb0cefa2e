"""Filters the lines of Triton's log that people need."""

from __future__ import annotations

import re
from collections.abc import Sequence

# A row of the table that Triton prints before it gives up, and what the Python backend puts before the reason.
_NOT_LOADED = re.compile(r"^\| (\S+) +\| \d+ +\| UNAVAILABLE: (?:Internal: )?(?:\w+Error: )?(.*?) *\|$")


def is_error(line: str) -> bool:
    """Whether Triton reports a line as an error, and it is one: a machine without a GPU is none."""
    return line.startswith("E") and not _is_noise(line)


def last_words(log: Sequence[str], lines: int = 20) -> str:
    """Why a server died: the models that it could not load, each with its reason; without any, its last lines.

    Args:
        log: The server's log.
        lines: Most lines to show; those that speak of errors, where there are any.
    """
    reasons = {match[1]: match[2] for match in map(_NOT_LOADED.match, log) if match}
    if reasons:
        return "\n".join(f"{model} cannot be loaded: {reason}" for model, reason in reasons.items())
    log = [line for line in log if not _is_noise(line)]
    telling = [line for line in log if line.startswith("E") or "rror" in line or "failed" in line]
    return "\n".join((telling or log)[-lines:])


def _is_noise(line: str) -> bool:
    return "CudaDriverHelper has not been initialized" in line or "CUDA driver version is insufficient" in line
