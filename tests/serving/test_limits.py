"""Every limit of the service: all in one table, and the same in the documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from id3pm.serving.protocol import limits

ROOT = Path(__file__).parents[2]
ROWS = [row for rows in limits.LIMITS.values() for row in rows]


def test_the_documentation_shows_the_table() -> None:
    """After a change: `python -m id3pm.serving.protocol.limits` prints what belongs there."""
    text = (ROOT / "deploy" / "README.md").read_text()
    assert limits.markdown() in text


def test_every_limit_is_in_the_table() -> None:
    source = Path(limits.__file__).read_text()
    made_by = dict(re.findall(r"^([A-Z][A-Z_]+) = (\w+)", source, re.MULTILINE))
    assert len(made_by) > 20
    assert [name for name, function in made_by.items() if function != "_limit"] == []


@pytest.mark.parametrize("room", ["serving/gateway", "serving/launcher"])
def test_no_other_file_has_limits_of_its_own(room: str) -> None:
    found = [
        f"{path.name}: {line}"
        for path in sorted((ROOT / "id3pm" / room).glob("*.py"))
        for line in path.read_text().splitlines()
        if re.match(r"_?MAX_[A-Z_]+(: \w+)? = [0-9(]", line)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [(2**30, "bytes", "1 GiB"), (1536, "bytes", "1536 bytes"), (0.5, "s", "0.5 s"), (10**12, "us", "1000000000000 us")],
)
def test_limits_are_shown_with_their_unit(value: float, unit: str, shown: str) -> None:
    assert limits.Limit(value, unit, "", "").shown() == shown
