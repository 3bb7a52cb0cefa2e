"""See the package."""

from __future__ import annotations


class AcceleratorState:
    """Nothing is shared between accelerators here."""

    @staticmethod
    def _reset_state(reset_partial_state: bool = False) -> None:
        """Nothing to forget."""
