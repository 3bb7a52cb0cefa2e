"""Every setting of a training step is measured, each with what it says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import training_settings
from id3pm.training.presets import PRESETS
from networks import TINY_16


def test_every_setting_is_measured_in_turn(tmp_path: Path) -> None:
    small = {"unet": TINY_16, "train_size": 16, "batch_size": 2, "identity_loss": 0.0, "identity_gain": 1.0}
    config = dataclasses.replace(PRESETS["demo", "base"], **small)  # type: ignore[arg-type]
    lines = training_settings.settings_table([config], 1, tmp_path)
    assert [line["setting"] for line in lines] == [way.name for way in training_settings.WAYS]
    assert all(float(str(line["cpu_ms"])) > 0 and float(str(line["clock_ms"])) > 0 for line in lines)
    assert lines[0]["cpu_ratio"] == 1.0
    text = training_settings.markdown(lines)
    assert len(text.splitlines()) == 2 + len(lines) and "--no-channels-last" in text
    (data,) = training_settings.data_table([config], 1)
    assert float(str(data["data_ms"])) > 0 and "| paper base, 2 |" in training_settings.data_markdown([data])
