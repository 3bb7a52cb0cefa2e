"""Listeners on the elements of the page."""

from __future__ import annotations

from typing import Any

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""No overlay on a waiting element, because the page shows its own progress; and no API for programs."""
