"""Comparing the tensors of a checkpoint with those that an architecture needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from id3pm.errors import CheckpointError

Shapes = Mapping[str, tuple[int, ...]]


def require_same_shapes(expected: Shapes, given: Shapes) -> None:
    """Refuses a checkpoint whose keys or shapes are not exactly the expected ones.

    Args:
        expected: Shape by key, as the architecture has it.
        given: Shape by key, as the checkpoint has it.

    Raises:
        CheckpointError: The message lists all missing, extra and mis-shaped keys.
    """
    missing = [f"{key} {expected[key]}" for key in expected if key not in given]
    extra = [f"{key} {given[key]}" for key in given if key not in expected]
    misshaped = [
        f"{key}: the checkpoint has {given[key]}, the architecture {shape}"
        for key, shape in expected.items()
        if key in given and tuple(given[key]) != tuple(shape)
    ]
    if missing or extra or misshaped:
        raise CheckpointError(
            f"the checkpoint does not fit the architecture: of {len(expected)} tensors needed, {len(missing)} are "
            f"missing and {len(misshaped)} have another shape; {len(extra)} are unknown. Choose the configuration it "
            "was trained with; rename keys that are only called otherwise."
            + _section("missing", missing)
            + _section("unknown", extra)
            + _section("another shape", misshaped)
        )


def _section(title: str, lines: Iterable[str]) -> str:
    body = "".join(f"\n  {line}" for line in lines)
    return f"\n{title}:{body}" if body else ""
