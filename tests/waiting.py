"""Waiting for what another thread or process brings about, with a limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def wait_until(condition: Callable[[], Any], timeout_s: float = 20.0, pause_s: float = 0.005) -> float:
    """Seconds until a condition holds; fails after `timeout_s`."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout_s, "waited in vain"
        time.sleep(pause_s)
    return time.monotonic() - began
