"""Liveness of a model's threads, from its answer to `ping`: which one hangs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LOOP_S = 3.0
"""Longest time without progress of a scheduler with work, or of the answering thread, beside `LOOP_STEPS` steps."""
LOOP_STEPS = 5.0
_UNKNOWN_STEP_MS = 10_000.0  # ms of a step, if a stage does not report it


def rows_of(state: Mapping[str, Any]) -> int:
    """Images in flight in a stage."""
    return sum(state.get(kind, 0) for kind in ("active", "waiting", "paused"))


def hung_thread(
    state: Mapping[str, Any], loop_s: float = LOOP_S, loop_steps: float = LOOP_STEPS
) -> tuple[str, str] | None:
    """Name and symptom of a hung thread in a stage that still answers pings; `None` if there is none.

    Args:
        state: The answer to `ping`.
        loop_s: See `LOOP_S`.
        loop_steps: See `LOOP_S`.
    """
    step_ms = state.get("step_ms") or _UNKNOWN_STEP_MS
    longest_ms = 1e3 * loop_s + loop_steps * step_ms
    rows, age_ms, answer_age_ms = rows_of(state), state["loop_age_ms"], state.get("answer_age_ms", 0)
    if rows and age_ms > longest_ms:  # waiting ones count too: a loop that died before its first row has no active ones
        return "the scheduler", f"no sign of life for {age_ms / 1e3:.1f} s with {rows} images at work or waiting"
    if answer_age_ms > longest_ms:
        return "the answering thread", f"an image has been waiting for {answer_age_ms / 1e3:.1f} s to be sent"
    return None
