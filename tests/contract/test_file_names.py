"""Names of the test files."""

from __future__ import annotations

import collections
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_no_two_modules_have_one_name():
    """Pytest imports test files and their helpers by their base name, and refuses a second one of the same name."""
    names = collections.Counter(file.name for file in TESTS.rglob("*.py") if file.name != "conftest.py")
    assert [name for name, count in names.items() if count > 1] == []
