"""What every file of training's tests begins with."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def fresh_accelerate() -> None:
    """accelerate keeps precision and compiler for the whole process: those of another file's runs end here."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
