"""CI's second try of tests that failed beside the others: what it lets pass, and what not."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci/failed_again.py"


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("failed_again", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def leave(part: str, status: int | None, failed: list[str]) -> None:
    """What a run of pytest leaves."""
    for name, value in (("id3pm/exit_status", status), ("cache/lastfailed", dict.fromkeys(failed, True) or None)):
        if value is not None:
            file = Path(".pytest_cache") / part / "v" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(value))


def make(*tests: str) -> list[str]:
    """Test files; `True` passes, `False` fails."""
    for number, test in enumerate(tests):
        Path(f"test_made_{number}.py").write_text(f"def test_one():\n    assert {test}\n")
    Path("pytest.ini").write_text("[pytest]\nmarkers =\n    slow\n")
    return [f"test_made_{number}.py::test_one" for number in range(len(tests))]


def test_what_passes_alone_passes(script: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    leave("rooms", 1, make("True", "True"))
    leave("integration", 0, [])
    assert script.main() == 0
    assert "FAILED BESIDE OTHERS, run again alone: test_made_0.py::test_one, test_made_1.py::test_one" in (
        capfd.readouterr().err
    )


def test_what_fails_alone_fails(script: ModuleType) -> None:
    leave("rooms", 1, make("True", "False"))
    leave("integration", 0, [])
    assert script.main() == 1


@pytest.mark.parametrize("status", [None, 2, 3, 4, 5])
def test_a_part_that_did_not_get_to_its_end_fails(script: ModuleType, status: int | None) -> None:
    leave("rooms", 1, make("True"))
    leave("integration", status, [])
    assert script.main() == 1


def test_all_tests_of_a_file_count_once(script: ModuleType) -> None:
    make("True")
    with Path("test_made_0.py").open("a") as file:
        file.writelines(f"def test_{number}():\n    pass\n" for number in range(6))
    leave("rooms", 0, [])
    leave("integration", 1, [f"test_made_0.py::test_{number}" for number in range(6)])
    assert script.main() == 0


def test_failures_in_many_files_and_none_fail(script: ModuleType) -> None:
    made = make("True", "True", "True", "True")
    leave("rooms", 1, made[:2])
    leave("integration", 1, made[2:])
    assert script.main() == 1
    for part in script.PARTS:
        leave(part, 0, [])
        (Path(".pytest_cache") / part / "v/cache/lastfailed").unlink()
    assert script.main() == 1, "something else failed, then"
