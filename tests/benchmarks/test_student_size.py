"""The memory and time of distillation are those of the command itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import student_size


@pytest.mark.timeout(600)
def test_a_stage_is_estimated_and_measured(tmp_path: Path) -> None:
    result = CliRunner().invoke(student_size.main, ["--quick", "--stage", "sr", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "student_size.json").read_text())["sr"]
    assert found["batch"] == 1 and found["estimated_s"] > 0 and 0.2 < found["peak_gb"] < 8
    assert (tmp_path / "sr" / "checkpoint.pt").is_file()
    assert "0.2 M parameters, 0.00314 TFLOP" in result.output


def test_a_command_that_fails_is_shown() -> None:
    with pytest.raises(RuntimeError, match=r"status 3"):
        student_size.run([student_size.sys.executable, "-c", "import sys; sys.exit(3)"], 60)
