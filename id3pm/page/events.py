"""Listeners on the elements of the page."""

from __future__ import annotations

from typing import Any

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""No veil over an element that waits, for the page tells its progress itself; and no interface for programs."""
