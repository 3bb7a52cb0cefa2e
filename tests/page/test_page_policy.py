"""The policy on the page is the documentation's."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_package_has_the_policy_of_the_documentation() -> None:
    copy = ROOT / "id3pm/page/responsible_use.md"
    assert copy.read_text() == (ROOT / "docs/responsible_use.md").read_text(), "copy docs/responsible_use.md there"
