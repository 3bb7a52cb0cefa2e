from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from id3pm.errors import InvalidInputError
from id3pm.evaluation.figures.grid import Tile, grid
from id3pm.evaluation.figures.sheet import Effect, save
from id3pm.evaluation.figures.table import table_command


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for name in ("pca", "guidance"):
        pictures = [Tile(random.integers(0, 255, (64, 64, 3), np.uint8)) for _ in range(4)]
        effects = [Effect(control=f"{name} {n}", change="0 -> 1", kept="0.6", moved="a | b") for n in range(2)]
        save(tmp_path / "sheets", name, grid([pictures]), effects, {"seed": 0})
    return tmp_path / "sheets"


def run(*words: object) -> str:
    result = CliRunner().invoke(table_command, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_all_effects_are_rows_of_one_table(folder: Path) -> None:
    lines = run("--out", folder).splitlines()
    assert lines[0] == "| control | from -> to | identity kept (cosine) | what moved |"
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| guidance 0", "| guidance 1", "| pca 0", "| pca 1"]
    assert lines[2].endswith("| 0.6 | a \\| b |")
    assert len(run("--out", folder, "--name", "pca").splitlines()) == 4


def test_the_page_gets_the_table_and_keeps_the_rest(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "control.md"
    page.write_text("# Control\n<!-- effects -->\nold\n<!-- end of effects -->\nrest\n")
    run("--out", folder, "--docs", page)
    once = page.read_text()
    assert once.startswith("# Control\n<!-- effects -->\n\n| control") and once.endswith(
        "<!-- end of effects -->\nrest\n"
    )
    assert "old" not in once and once.count("pca 0") == 1
    run("--out", folder, "--docs", page)
    assert page.read_text() == once
    run("--out", folder, "--docs", page, "--name", "pca", "--mark", "effects")
    assert "guidance" not in page.read_text()


@pytest.mark.parametrize("text", ["none", "<!-- effects -->\n", "<!-- end of effects -->\n<!-- effects -->\n"])
def test_a_page_without_a_place_is_left_as_it_is(folder: Path, tmp_path: Path, text: str) -> None:
    page = tmp_path / "control.md"
    page.write_text(text)
    with pytest.raises(InvalidInputError, match="needs one line"):
        run("--out", folder, "--docs", page)
    assert page.read_text() == text


def test_pictures_are_copied_smaller_and_still_say_what_they_are(folder: Path, tmp_path: Path) -> None:
    run("--out", folder, "--pictures", tmp_path / "docs" / "control")
    copies = sorted((tmp_path / "docs" / "control").iterdir())
    assert [copy.name for copy in copies] == ["guidance.png", "pca.png"]
    with Image.open(folder / "pca.png") as before, Image.open(copies[1]) as after:
        assert after.size == before.size and "trainedAlgorithmicMedia" in after.text["XML:com.adobe.xmp"]
        difference = np.asarray(before, np.float64) - np.asarray(after.convert("RGB"), np.float64)
    assert np.abs(difference).mean() < 12
    assert copies[1].stat().st_size < 0.6 * (folder / "pca.png").stat().st_size


def test_what_is_no_report_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="mean.json is missing: make it with id3pm sheet mean"):
        run("--out", folder, "--name", "mean")
    with pytest.raises(InvalidInputError, match="has no reports"):
        run("--out", tmp_path / "empty")
    for content in ("{", json.dumps({"seed": 1}), json.dumps({"effects": [{"control": "x"}]}), "[]"):
        (folder / "mean.json").write_text(content)
        with pytest.raises(InvalidInputError, match="mean.json is no report"):
            run("--out", folder)


def test_a_report_is_strict_json(tmp_path: Path) -> None:
    numbers = {
        "a": float("nan"),
        "b": [1.5, float("inf"), (np.float64("nan"),)],
        "c": {"d": None, "e": "nan", "f": 0.0, "g": True},
    }
    save(tmp_path, "pca", grid([[Tile(np.zeros((8, 8, 3), np.uint8))]]), [], numbers)
    text = (tmp_path / "pca.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    kept = {"d": None, "e": "nan", "f": 0.0, "g": True}
    assert json.loads(text) == {"effects": [], "a": None, "b": [1.5, None, [None]], "c": kept}
    assert json.loads(text)["c"]["g"] is True
