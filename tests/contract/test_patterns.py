"""Every regular expression of the packages takes time in proportion to the text, whatever the text."""

from __future__ import annotations

import ast
import functools
import itertools
import re
import time
from collections.abc import Iterator
from pathlib import Path
from re import _compiler, _parser  # type: ignore[attr-defined]
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("id3pm", "client/src", "export", "benchmarks", "demo", "deploy")
CALLS = {"compile", "search", "match", "fullmatch", "sub", "subn", "split", "findall", "finditer"}
SIZES = (12, 20, 25, 500, 1000, 2000, 8000, 32000)  # the first ones show what is exponential before it takes for ever
LIMIT_S = 0.1  # of processor time; a linear pattern takes some milliseconds, a quadratic one a second
LETTERS = " \n0aA/.'\"|-_:<[(,\xff"  # one of them stands for each class of letters
MOST_PARTS = 8  # of a pattern, before neighbours are taken together


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
    """Patterns with their flags. One that is given by name would not be seen, and is refused."""
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
        assert found is not None, f"the pattern is no literal: {ast.unparse(node)}"
        yield found, flags


@functools.cache
def all_patterns() -> list[tuple[str, str | bytes, int]]:
    found = []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            source = path.read_text()
            assert "from re import" not in source and "import re as" not in source, f"{path}: write `import re`"
            for pattern, flags in patterns_of(source) if "re." in source else ():
                found.append((str(path.relative_to(ROOT)), pattern, flags))
    return found


def parts(items: Any, flags: int) -> list[list[str]]:
    """Ways through a parsed pattern: for each, short texts that its parts match, one after the other.

    Literals that follow each other are one text; each alternative is a way of its own; what may be missing is there.
    """
    ways: list[list[str]] = [[]]
    for kind, value in items:
        name = str(kind)
        if name == "LITERAL":
            found = [[chr(value)]]
        elif name in ("IN", "ANY", "NOT_LITERAL"):
            one = _compiler.compile(_parser.SubPattern(items.state, [(kind, value)]), flags)
            is_bytes = isinstance(items.state.str, bytes)
            found = [
                [letter for letter in LETTERS if one.fullmatch(letter.encode("latin-1") if is_bytes else letter)][:1]
            ]
        elif name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            least, _, inner = value
            found = [way if least < 2 else ["".join(way) * least] for way in parts(inner, flags)]
        elif name in ("SUBPATTERN", "ATOMIC_GROUP"):
            found = parts(value[-1] if name == "SUBPATTERN" else value, flags)
        elif name == "BRANCH":
            found = [way for branch in value[1] for way in parts(branch, flags)]
        else:  # positions and what must not follow
            found = [[]]
        literals = name == "LITERAL"
        ways = [joined(way, more, literals) for way, more in itertools.islice(itertools.product(ways, found), 16)]
    return ways


def joined(way: list[str], more: list[str], literal: bool) -> list[str]:
    """A way with more of it; a literal is marked until something else follows, so that the next one continues it."""
    if literal and way and way[-1].endswith(MARK):
        return [*way[:-1], way[-1].removesuffix(MARK) + more[0] + MARK]
    return [*way, *(part + MARK if literal else part for part in more)]


MARK = "\ue000"


def bad_texts(pattern: str | bytes, flags: int) -> Iterator[tuple[str, str]]:
    """What may make a pattern slow: the beginning of a match, then many of one of its parts, and never its end."""
    yield from (("", text) for text in (*" \n0a/'|", "a/", " 0", "\na"))
    for way in parts(_parser.parse(pattern, flags), flags):
        steps = [part.replace(MARK, "") for part in way]
        ends = range(1, len(steps) + 1)
        if len(steps) <= MOST_PARTS:
            runs = {"".join(steps[i:j]) for i in ends for j in ends if i < j} | {"".join(steps[:j]) for j in ends}
        else:
            runs = {"".join(steps[i : i + 2]) for i in range(len(steps))}
        for run in sorted(runs | set(steps)):
            for end in (0, *ends):
                yield "".join(steps[:end]), run


def slowest(pattern: str | bytes, flags: int) -> float:
    """Seconds that a pattern takes at most, growing the texts until one takes too long."""
    compiled = re.compile(pattern, flags)
    texts = sorted(set(bad_texts(pattern, flags)))
    worst = 0.0
    for size, (head, run) in itertools.product(SIZES, texts):
        whole = head + (run * size)[:size] + "\x00"
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


@pytest.mark.parametrize(
    "pattern",
    [
        r"\s*\n+At:",
        r"(a+)+b",
        r" *,",
        r"(<!-- x -->\n).*?(<!-- /x -->)",
        r"^\| (\S+) +\| \d+ +\| UNAVAILABLE: (?:Internal: )?(?:\w+Error: )?(.*?) *\|$",
        r"x[0-9]+y?[0-9]+z",
        rb"\xff\xe1[^\x00]*\x00\x01",
    ],
)
def test_a_pattern_that_is_slow_is_seen(pattern: str | bytes) -> None:
    assert slowest(pattern, re.DOTALL) > LIMIT_S


@pytest.mark.parametrize(
    "source", ["import re\nfor a in TABLE:\n    re.search(a, text)", "import re\nre.compile(A + 'x')"]
)
def test_a_pattern_that_is_given_by_name_is_refused(source: str) -> None:
    with pytest.raises(AssertionError, match="no literal"):
        list(patterns_of(source))


def test_the_gateway_reads_no_text_with_patterns() -> None:
    """What a caller wrote is compared, counted and cut; it is never matched (but for bytes, by their class)."""
    found = {(file, pattern) for file, pattern, _ in all_patterns() if file.startswith("id3pm/serving/gateway")}
    assert {file for file, _ in found} <= {"id3pm/serving/gateway/admission.py"}, found
