"""The sheet of guidance: what it measures of a generator that is known, and all of it on real engines."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_engines
from click.testing import CliRunner
from fake_generator import PEOPLE, install
from PIL import Image

from id3pm.errors import InvalidInputError
from id3pm.evaluation.figures import guidance
from id3pm.evaluation.figures.commands import sheet_group
from id3pm.evaluation.figures.grid import GAP, LINE

ROOT = Path(__file__).parents[3]


def report(tmp_path: Path, *words: object, name: str = "guidance") -> dict[str, Any]:
    words = ("guidance", "--photo", tmp_path, "--out", tmp_path, *words)
    result = CliRunner().invoke(sheet_group, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert Path(result.output.strip()) == tmp_path / f"{name}.png"
    data: dict[str, Any] = json.loads((tmp_path / f"{name}.json").read_text())
    return data


def test_more_guidance_is_nearer_to_the_person_and_less_different_from_seed_to_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, restless=0.2)
    data = report(tmp_path, "--scales", "1,2,4")
    measured = data["measured"]
    assert data["headings"] == ["1", "2", "4"] and data["seeds"] == [0, 1, 2, 3] and len(data["people"]) == PEOPLE
    for what in ("vectors_apart", "pixels_apart"):
        means = [np.mean(each[what]) for each in measured]
        assert means[0] > 1.5 * means[1] > 2.25 * means[2] > 0
        assert all(len(each[what]) == PEOPLE for each in measured)
        low, high = measured[0][f"{what}_interval"]
        assert low < means[0] < high
    assert np.mean(measured[2]["similarity"]) > np.mean(measured[0]["similarity"])
    flat = "the pictures have no contrast, however much they differ"
    assert [each["contrast"] for each in measured] == pytest.approx([0, 0, 0], abs=1e-9), flat
    first = data["effects"][0]
    assert first["change"] == "1" and "apart by ID vectors" in first["moved"] and " .. " in first["kept"]


def test_a_generator_that_does_not_look_at_the_seed_has_no_diversity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch)
    measured = report(tmp_path, "--scales", "1,2")["measured"]
    for each in measured:
        assert np.abs(each["vectors_apart"]).max() < 1e-3 and max(each["pixels_apart"]) == 0


def test_the_picture_shows_the_people_that_are_asked_for_and_measures_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, restless=0.2, faceless=(0, 1, 2))
    small = report(tmp_path, "--scales", "1,2", "--show", 1)
    with Image.open(tmp_path / "guidance.png") as image:
        height = image.height
    large = report(tmp_path, "--scales", "1,2", "--show", 3)
    with Image.open(tmp_path / "guidance.png") as image:
        assert image.height - height == 2 * (guidance.BLOCK + GAP + LINE)
    assert small == large and small["measured"][0]["no_face"] == 3
    assert small["measured"][0]["vectors_apart"][0] is None, "one face is no pair"


def test_the_sheets_of_thresholds_and_intervals_say_what_they_are_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch)
    effects = report(tmp_path, "--scale", 8, "--percentiles", "0,0.99", name="guidance_threshold")["effects"]
    assert [effect["change"] for effect in effects] == ["clipped", "0.99"]
    assert "dynamic threshold at guidance 8" == effects[0]["control"] and "black or white" in effects[0]["moved"]
    words = ("--interval", 0, 999, "--interval", 500, 999)
    effects = report(tmp_path, *words, name="guidance_interval")["effects"]
    assert [effect["change"] for effect in effects] == ["0-999", "500-999"]
    assert effects[1]["moved"].startswith(
        f"7 evaluations an image, {500 / (4 * PEOPLE):.0f} ms of processor time; seeds"
    )
    both = CliRunner().invoke(sheet_group, ["guidance", "--percentiles", "0", "--interval", "0", "9"])
    assert both.exit_code == 2 and "give one of them" in both.output


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, face_folder: Path, sr_folder: Path) -> Path:
    """Real engines that take the ID vectors of the real face models, with attribute set 1; 16 px show no face."""
    folder = tmp_path_factory.mktemp("sheets")
    base = dataclasses.replace(tiny_engines.BASE, identity_dim=128)
    tiny_engines.write_engine_folder(folder / "denoiser_64/1/engine", base)
    shutil.copytree(sr_folder, folder / "super_resolution/1/engine")
    shutil.copytree(face_folder, folder / "face_embedding/1/engine")
    return folder


def on_engines(command: str, repository: Path, out: Path, *words: str) -> dict[str, Any]:
    people = [word for number in (1, 2) for word in ("--photo", str(ROOT / f"demo/people/0{number}.png"))]
    words = (command, "--repository", str(repository), "--out", str(out), "--threads", "1", *people, *words)
    result = CliRunner().invoke(sheet_group, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    data: dict[str, Any] = json.loads(Path(result.output.strip()).with_suffix(".json").read_text())
    return data


def test_guidance_runs_on_engines_and_counts_what_they_computed(repository: Path, tmp_path: Path) -> None:
    words = ["--interval", "0", "99", "--interval", "50", "99", "--interval", "99", "99", "--seeds", "2"]
    data = on_engines("guidance", repository, tmp_path, *words)
    # Four steps of a process of 100; one of them is the noisiest, two lie in its upper half.
    assert [each["evaluations"] for each in data["measured"]] == [8, 6, 5]
    for each in data["measured"]:
        assert each["ms"] > 0 and min(each["pixels_apart"]) > 1
        assert each["similarity"] == [None, None] and each["no_face"] == 4, "no face is told, and no error"


def test_attributes_run_on_engines_with_the_sweeps_of_their_set(repository: Path, tmp_path: Path) -> None:
    data = on_engines("attributes", repository, tmp_path, "--values", "2", "--seeds", "1")
    assert [sweep["name"] for sweep in data["sweeps"]] == ["yaw", "sadness <-> happiness", "emotions"]
    assert [len(sweep["no_face"]) for sweep in data["sweeps"]] == [2, 2, 8]
    with Image.open(tmp_path / "attributes.png") as image:
        assert image.width > 10 * 128, "target, without attributes and eight emotions"
    with pytest.raises(InvalidInputError, match="attribute set 1 has no age"):
        on_engines("attributes", repository, tmp_path, "--fixed", "age=30")
