"""`id3pm evaluate baselines` with made-up people: one run, all methods, nothing made twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from made_up_people import ColorPipeline, write_people
from numpy.typing import NDArray
from PIL import Image
from test_verification_command import ColorModel

from id3pm.errors import InvalidInputError
from id3pm.evaluation import options
from id3pm.evaluation.baselines import command
from id3pm.evaluation.baselines.black_box import BlackBox, Reconstruction
from id3pm.evaluation.commands import evaluate_group


class ColorBox(ColorModel):
    """A training model that also is the black box."""

    def embed(self, images: Sequence[NDArray[np.uint8]], aligned: bool = False) -> NDArray[np.float32]:
        return super().embed(np.stack([image[:8, :8] for image in images]))

    def views(self, images: Sequence[NDArray[np.uint8]], aligned: bool) -> NDArray[np.float32]:
        vectors = self.embed(images, aligned)
        return np.stack([vectors, vectors], axis=1)


class Guess:
    """A method that asks about one white picture and returns it. Counts its searches."""

    name, key, aligned = "guess", "guess", False

    def __init__(self) -> None:
        self.searches = 0

    def reconstruct(
        self,
        target: NDArray[np.float32],
        black_box: BlackBox,
        budget: int,
        seed: int,
        on_queries: Callable[[int], object],
    ) -> Reconstruction:
        self.searches += 1
        white = np.full((8, 8, 3), 255, np.uint8)
        return Reconstruction(white, float(black_box.similarities([white], target, aligned=False)[0]), 1)


@pytest.fixture
def guess(monkeypatch: pytest.MonkeyPatch) -> Guess:
    method = Guess()
    model = ColorBox()
    model.name, model.centred = "sface", True
    monkeypatch.setattr(options.Pipeline, "load", lambda repository, threads: ColorPipeline())
    monkeypatch.setattr(options, "StageModel", lambda repository, threads: model)
    monkeypatch.setattr(options, "open_models", lambda names, first, threads: [first])
    monkeypatch.setattr(command, "_method", lambda name, training, bank, cache: method)
    return method


def run(folder: Path, *arguments: str) -> Result:
    if not (folder / "data").exists():
        write_people(folder / "data", 40)
        (folder / "photographs").mkdir()
        for number, color in enumerate(((200, 40, 40), (40, 200, 40), (40, 40, 200))):
            Image.new("RGB", (8, 8), color).save(folder / f"photographs/{number}.png")
    common = [
        "--data",
        str(folder / "data"),
        "--photographs",
        str(folder / "photographs"),
        "--out",
        str(folder / "out"),
    ]
    return CliRunner().invoke(evaluate_group, ["baselines", *common, *arguments], standalone_mode=False)


def test_all_methods_are_compared_on_both_sets_in_one_run(guess: Guess, tmp_path: Path) -> None:
    result = run(tmp_path, "--method", "gaussian", "--count", "3", "--seeds", "2", "--queries", "7")
    assert result.exit_code == 0, result.exception
    rows = json.loads((tmp_path / "out/baselines.json").read_text())["rows"]
    assert [(row["targets"], row["method"]) for row in rows] == [
        (name, method) for name in ("held-out people", "photographs") for method in ("other people", "guess", "ID3PM")
    ]
    by_method = {row["method"]: row for row in rows[:3]}
    assert by_method["ID3PM"]["similarity"]["sface"] == pytest.approx(1.0, abs=1e-2)
    assert by_method["guess"]["similarity"]["sface"] < 0.9
    assert (by_method["guess"]["queries"], by_method["ID3PM"]["queries"]) == (1.0, 0.0)
    table = (tmp_path / "out/baselines.md").read_text()
    assert (
        "at home" in table and "| held-out people | guess |" in table and "| held-out people | other people |" in table
    )
    for name in ("held-out_people", "photographs"):
        with Image.open(tmp_path / f"out/baselines_{name}.png") as sheet:
            assert np.asarray(sheet).std() > 10
    images = tmp_path / "out/baseline_images/photographs"
    assert sorted(str(file.relative_to(images)) for file in images.rglob("*.png")) == [
        f"{folder}/0{number}.png" for folder in ("guess", "id3pm", "targets") for number in range(3)
    ]
    assert guess.searches == 12
    assert run(tmp_path, "--method", "gaussian", "--count", "3", "--seeds", "2", "--queries", "7").exit_code == 0
    assert guess.searches == 12  # kept
    again = json.loads((tmp_path / "out/baselines.json").read_text())["rows"][1]
    assert again["seconds"] == by_method["guess"]["seconds"]


def test_a_photograph_without_a_face_is_named(guess: Guess, tmp_path: Path) -> None:
    assert run(tmp_path, "--count", "1", "--queries", "7").exit_code == 0
    Image.new("RGB", (8, 8)).save(tmp_path / "photographs/0.png")
    with pytest.raises(InvalidInputError, match="0.png shows no face that can be found"):
        raise run(tmp_path, "--count", "1").exception or AssertionError


def test_too_few_people_are_refused(guess: Guess, tmp_path: Path) -> None:
    found = run(tmp_path, "--count", "39").exception
    assert isinstance(found, InvalidInputError) and "39 targets and strangers: the data set holds out 40" in str(found)
