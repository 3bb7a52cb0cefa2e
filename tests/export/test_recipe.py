"""The recipe of an engine: words about the code do not change it, the code does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import id3pm
from id3pm.export import recipe
from id3pm.export.targets import TARGETS

CODE = '''"""What it is."""

import math

LIMIT = 3.5
"""Of what."""


def area(r: float) -> float:
    """Of a circle."""
    return math.pi * r**2  # exact
'''


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("What it is.", "What it really is."),
        ("Of what.", "Of something else."),
        ('    """Of a circle."""\n', ""),
        ("  # exact", ""),
        ("math.pi * r**2", "(\n        math.pi\n        * r ** 2\n    )"),
    ],
)
def test_words_and_layout_do_not_count(before: str, after: str) -> None:
    assert before in CODE
    assert recipe.meaning(CODE.replace(before, after)) == recipe.meaning(CODE)


@pytest.mark.parametrize(
    ("before", "after"), [("3.5", "3.6"), ("r**2", "r**3"), ("math.pi", "math.e"), ("float:", "int:"), ("*", "+")]
)
def test_code_counts(before: str, after: str) -> None:
    assert before in CODE
    assert recipe.meaning(CODE.replace(before, after)) != recipe.meaning(CODE)


def test_every_version_of_python_gives_the_same_text() -> None:
    assert recipe.meaning('def f(a, *, b=None): return f"{a!r:>{b}} {{}}é"') == (
        "Module(body=[FunctionDef(name='f', args=arguments(args=[arg(arg='a')], kwonlyargs=[arg(arg='b')], "
        "kw_defaults=[Constant()]), body=[Return(value=JoinedStr[FormattedValue(value=Name(id='a', "
        "ctx=Load()), conversion=114, format_spec=JoinedStr[Constant(value='>'), "
        "FormattedValue(value=Name(id='b', ctx=Load()), conversion=-1)]), Constant(value=' {}\\xe9')])])])"
    )


def test_a_changed_number_in_a_file_changes_the_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "id3pm"
    shutil.copytree(Path(id3pm.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__", "serving"))
    monkeypatch.setattr(recipe.id3pm, "__file__", str(package / "__init__.py"))
    known = recipe.recipe_hash([])
    file = package / "export/unet/winograd.py"
    text = file.read_text()
    file.write_text(text.replace('"""', '"""Reworded. ', 1) + "# a comment\n")
    assert recipe.recipe_hash([]) == known
    file.write_text(text + "NUMBER = 1\n")
    one = recipe.recipe_hash([])
    file.write_text(text + "NUMBER = 2\n")
    assert len({known, one, recipe.recipe_hash([])}) == 3


def test_every_file_of_a_recipe_exists() -> None:
    for target in TARGETS.values():
        for precision in target.precisions.values():
            recipe.recipe_hash(precision.recipe)
