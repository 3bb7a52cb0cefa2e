"""Every regular expression of the packages takes time in proportion to the text, whatever the text."""

from __future__ import annotations

import ast
import functools
import re
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("id3pm", "client/src", "export", "benchmarks", "demo", "deploy")
CALLS = {"compile", "search", "match", "fullmatch", "sub", "subn", "split", "findall", "finditer"}
SIZES = (12, 20, 25, 500, 2000, 8000)  # the first ones show what is exponential before it takes for ever
LIMIT_S = 0.1  # of processor time; a linear pattern takes a millisecond, a quadratic one some tenths of a second


def literal(node: ast.expr) -> str | bytes | None:
    """The text of a pattern; what an f-string inserts stands as a letter."""
    if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        both = literal(node.left), literal(node.right)
        return None if any(part is None for part in both) else both[0] + both[1]  # type: ignore[operator]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "escape":
        return "x"
    return None


def patterns_of(source: str) -> Iterator[tuple[str | bytes, int]]:
    """Patterns with their flags; a call whose pattern is no literal counts by the texts of its module's tables."""
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CALLS):
            continue
        if not (isinstance(node.func.value, ast.Name) and node.func.value.id == "re" and node.args):
            continue
        said = [ast.unparse(part) for part in (*node.args[1:], *(word.value for word in node.keywords))]
        flags = sum(
            getattr(re, name) for name in ("DOTALL", "IGNORECASE", "MULTILINE") if f"re.{name}" in " ".join(said)
        )
        found = literal(node.args[0])
        assert found is not None or isinstance(node.args[0], ast.Name), f"not read: {ast.unparse(node)}"
        if found is not None:
            yield found, flags


@functools.cache
def all_patterns() -> list[tuple[str, str | bytes, int]]:
    found = []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for pattern, flags in patterns_of(path.read_text()):
                found.append((str(path.relative_to(ROOT)), pattern, flags))
    return found


def bad_texts(pattern: str) -> set[str]:
    """What may be repeated to make a pattern slow: its own letters and words, and one of each class of letters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        words = set(re.findall(r"[\w.:=<>' -]{2,40}", pattern))
    return set(" \n0a/'|") | {"a/", " 0", "\na"} | words | {re.sub(r"[\\()?:+*]", "", pattern)}


def slowest(pattern: str | bytes, flags: int) -> float:
    """Seconds that a pattern takes at most, growing the texts until one takes too long."""
    compiled = re.compile(pattern, flags)
    plain = pattern.decode("latin-1") if isinstance(pattern, bytes) else pattern
    worst = 0.0
    for size in SIZES:
        for text in sorted(bad_texts(plain)):
            for whole in ((text * size)[:size] + "\x00", plain[:2] + (text * size)[:size] + "\x00"):
                given = whole.encode("latin-1", "replace") if isinstance(pattern, bytes) else whole
                began = time.process_time()
                for _ in zip(compiled.finditer(given), range(10**6), strict=False):
                    pass
                compiled.fullmatch(given)
                worst = max(worst, time.process_time() - began)
                if worst > LIMIT_S:
                    return worst
    return worst


@pytest.mark.parametrize(
    ("file", "pattern", "flags"), all_patterns(), ids=lambda value: str(value)[-40:] if isinstance(value, str) else ""
)
def test_no_pattern_takes_more_than_linear_time(file: str, pattern: str | bytes, flags: int) -> None:
    assert slowest(pattern, flags) < LIMIT_S, f"{file}: {pattern!r}"


@pytest.mark.parametrize("pattern", [r"\s*\n+At:", r"(a+)+b", r" *,"])
def test_a_pattern_that_is_slow_is_seen(pattern: str) -> None:
    assert slowest(pattern, re.DOTALL) > LIMIT_S


def test_the_gateway_reads_no_text_with_patterns() -> None:
    """What a caller wrote is compared, counted and cut; it is never matched (but for bytes, by their class)."""
    found = {(file, pattern) for file, pattern, _ in all_patterns() if file.startswith("id3pm/serving/gateway")}
    assert {file for file, _ in found} <= {"id3pm/serving/gateway/admission.py"}, found
