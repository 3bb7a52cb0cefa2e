"""The Markdown of a report: its head, and tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

BAR = r"\|"  # within a cell


def head(title: str, subject: Mapping[str, object]) -> list[str]:
    """Title and subject, as lines."""
    return [f"# {title}", "", ", ".join(f"{name} {value}" for name, value in subject.items()), ""]


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table, as lines; each row has a cell for each head."""
    return [_row(heads), "|---" * len(heads) + "|", *map(_row, rows)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |"
