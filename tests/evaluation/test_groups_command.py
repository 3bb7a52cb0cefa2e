"""`id3pm evaluate groups` with made-up people."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner, Result
from made_up_people import ColorPipeline, replace_engines, write_people
from PIL import Image

from id3pm.errors import InvalidInputError
from id3pm.evaluation.commands import evaluate_group


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> ColorPipeline:
    fake = ColorPipeline()
    fake.base_manifest = SimpleNamespace(
        **{**vars(ColorPipeline.base_manifest), "sampling": SimpleNamespace(sampler="ddpm", spacing="uniform")}
    )
    replace_engines(monkeypatch, fake)
    return fake


def run(folder: Path, *arguments: str) -> Result:
    if not (folder / "data").exists():
        write_people(folder / "data", 24)
    common = ["--data", str(folder / "data"), "--out", str(folder / "out"), "--identities", "24"]
    return CliRunner().invoke(evaluate_group, ["groups", *common, *arguments], standalone_mode=False)


def test_table_has_a_row_per_judge_and_group_and_a_page_of_the_worst(pipeline: ColorPipeline, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("index,who\n" + "".join(f"{20 * n},{'even' if n % 2 == 0 else 'odd'}\n" for n in range(23)))
    result = run(tmp_path, "--labels", str(labels), "--by", "who")
    assert result.exit_code == 0, result.exception
    found = json.loads((tmp_path / "out/groups.json").read_text())
    assert [(row["judge"], row["group"], row["people"]) for row in found["rows"]] == [
        (judge, group, people)
        for judge in ("color", "independent")
        for group, people in (("all", 24), ("even", 12), ("odd", 11))
    ]
    assert found["rows"][0]["similarity"] == pytest.approx(1.0, abs=1e-2)
    assert len(found["worst"]) == 8
    assert "| color | even | 12 |" in (tmp_path / "out/groups.md").read_text()
    with Image.open(tmp_path / "out/worst.png") as page:
        assert np.asarray(page).std() > 10


def test_without_labels_people_are_grouped_by_brightness(pipeline: ColorPipeline, tmp_path: Path) -> None:
    assert run(tmp_path).exit_code == 0
    rows = json.loads((tmp_path / "out/groups.json").read_text())["rows"]
    assert [row["group"] for row in rows[:4]] == ["all", "high", "low", "middle"]
    assert sum(row["people"] for row in rows[1:4]) == 24


def test_an_attribute_that_the_data_set_lacks_is_named(pipeline: ColorPipeline, tmp_path: Path) -> None:
    found = run(tmp_path, "--by", "age").exception
    assert isinstance(found, InvalidInputError)
    assert "--by age: this data set has brightness; or give --labels" in str(found) and pipeline.made == 0
