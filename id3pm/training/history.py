"""A run's history: one JSON line with the mean losses of some steps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from id3pm.training.stepped_run import Losses

HISTORY_FILE = "history.jsonl"


def mean_losses(recent: list[Losses]) -> Losses:
    """Mean losses of the steps since the last line of the history."""
    return {name: float(np.mean([losses[name] for losses in recent])) for name in recent[-1]}


def cut_history(history: Path, step: int) -> None:
    """Drops lines after `step`: an interrupted run wrote them after its last checkpoint, and they will come again."""
    if history.exists():
        lines = history.read_text(encoding="utf-8").splitlines(keepends=True)
        history.write_text("".join(line for line in lines if json.loads(line)["step"] <= step), encoding="utf-8")
