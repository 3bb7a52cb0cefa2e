"""`id3pm baseline compare` with made-up people: one run, all methods, nothing made twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from made_up_people import ColorPipeline, write_people
from numpy.typing import NDArray
from PIL import Image
from test_verification_command import ColorModel

from id3pm.errors import InvalidInputError
from id3pm.evaluation import options
from id3pm.evaluation.baselines import comparison, methods
from id3pm.evaluation.baselines.black_box import BlackBox, Reconstruction
from id3pm.evaluation.baselines.commands import baseline_group
from id3pm.evaluation.baselines.nbnet import NbNet
from id3pm.evaluation.baselines.weights import save_weights

FACTS: dict[str, Any] = {
    "method": "nbnet",
    "id_vector_model": "sface",
    "network": {"identity_dim": 3, "blocks": "B", "channels": 256},
    "steps": 7,
    "batch size": 2,
    "data": {"name": "made up", "people": 5},
    "start": "a.safetensors",
}


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


class Pixels:
    """A network whose features are the mean colour."""

    name, frechet_name = "colours", "Frechet distance"

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return images.mean(axis=(1, 2)).astype(np.float32)


@pytest.fixture
def guess(monkeypatch: pytest.MonkeyPatch) -> Guess:
    method = Guess()
    model = ColorBox()
    model.name, model.centred = "sface", True
    monkeypatch.setattr(options.Pipeline, "load", lambda repository, threads: ColorPipeline())
    monkeypatch.setattr(options, "FaceEngineModel", lambda repository, threads: model)
    monkeypatch.setattr(options, "open_models", lambda names, first, threads: [first])
    monkeypatch.setattr(methods, "GaussianSampling", lambda authors_code: method)
    monkeypatch.setattr(comparison, "EfficientNetLite0", Pixels)
    monkeypatch.setattr(comparison, "landmark_look", lambda stage, threads, notes: brightness)
    return method


def brightness(images: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
    """Stands for pose."""
    return {"yaw": images.mean(axis=(1, 2, 3))}


def run(folder: Path, *arguments: str) -> Result:
    if not (folder / "data").exists():
        write_people(folder / "data", 60)
        (folder / "photographs").mkdir()
        for number, color in enumerate(((200, 40, 40), (40, 200, 40), (40, 40, 200))):
            Image.new("RGB", (8, 8), color).save(folder / f"photographs/{number}.png")
    folders = {"data": "data", "photographs": "photographs", "weights": "weights", "out": "out"}
    common = [word for name, place in folders.items() for word in (f"--{name}", str(folder / place))]
    return CliRunner().invoke(baseline_group, ["compare", *common, *arguments], standalone_mode=False)


ASKED = ("--method", "gaussian", "--method", "nbnet", "--count", "3", "--many", "22", "--queries", "7")
ASKED += ("--seeds", "3", "--search-seeds", "2")


def test_all_methods_are_compared_on_both_sets_in_one_run(guess: Guess, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    save_weights(tmp_path / "weights/nbnet.safetensors", NbNet(3, "B"), FACTS)
    result = run(tmp_path, *ASKED)
    assert result.exit_code == 0, result.exception
    report = json.loads((tmp_path / "out/baselines.json").read_text())
    rows = report["rows"]
    assert [(row["targets"], row["method"]) for row in rows] == [
        (name, method)
        for name in ("held-out people", "photographs")
        for method in ("other people", "guess", "NbNet", "ID3PM")
    ]
    by_method = {row["method"]: row["judgement"] | row for row in rows[:4]}
    assert by_method["ID3PM"]["similarity"]["sface"] == pytest.approx(1.0, abs=1e-2)
    assert by_method["guess"]["similarity"]["sface"] < 0.9
    assert (by_method["guess"]["queries"], by_method["ID3PM"]["queries"]) == (1.0, 0.0)
    # Verification and quality need more people than searches have.
    assert by_method["guess"]["verification"] == {} and by_method["guess"]["quality"] is None
    assert by_method["ID3PM"]["verification"]["sface"] >= 0.9 and by_method["ID3PM"]["people"] == 22
    low, high = by_method["NbNet"]["interval"]["sface"]
    assert low <= by_method["NbNet"]["similarity"]["sface"] <= high
    assert by_method["ID3PM"]["quality"] < 1e-2 < by_method["NbNet"]["quality"]
    assert rows[-1]["judgement"]["quality"] is None  # of photographs there is none
    diverse = report["diversity"]["held-out people"]
    assert list(diverse) == [
        "one real picture, altered",
        "real pictures of different people",
        "guess, 2 images",
        "ID3PM, 3 images",
    ]
    # All images of one target have one colour here; strangers have several.
    strangers = diverse["real pictures of different people"]
    for measure in ("feature distance", "ID distance (sface)", "pose distance"):
        assert (
            diverse["ID3PM, 3 images"][measure] == pytest.approx([0.0] * 3, abs=1e-3) and strangers[measure][0] > 0.05
        )
    assert diverse["ID3PM, 3 images"]["to the target (sface)"][0] == pytest.approx(0.0, abs=1e-2)
    assert diverse["guess, 2 images"]["to the target (sface)"][0] > 0.1
    assert diverse["one real picture, altered"]["pose distance"][0] > 1.0  # brighter, darker
    assert set(report["diversity"]) == {"held-out people", "photographs"}
    ways = {(each["targets"], each["method"]): each for each in report["interpolations"]}
    assert ways["held-out people", "ID3PM"]["similarity"] == pytest.approx(1.0, abs=1e-2)
    assert 1.0 <= ways["photographs", "ID3PM"]["largest"] < 1.5
    table = (tmp_path / "out/baselines.md").read_text()
    assert "| guess, 2 images | " in table and "Targets: photographs." in table
    assert "at home" in table and "| photographs | NbNet |" in table and "% (22)" in table
    trained = (
        "- NbNet: trained 7 steps of 2 on 5 people of the data set made up, from a.safetensors of an earlier run\n"
    )
    assert trained in table
    for name in ("held-out_people", "photographs"):
        for kind in ("baselines", "interpolations"):
            with Image.open(tmp_path / f"out/{kind}_{name}.png") as sheet:
                assert np.asarray(sheet).std() > 10
    images = tmp_path / "out/baseline_images/photographs"
    assert sorted(str(file.relative_to(images)) for file in images.rglob("*.png")) == [
        f"{folder}/0{number}.png" for folder in ("guess", "id3pm", "nbnet", "targets") for number in range(3)
    ]
    # Three people with two seeds, and what lies between the ends of one interpolation, in each set.
    assert guess.searches == 2 * (6 + 3)
    assert run(tmp_path, *ASKED).exit_code == 0
    assert guess.searches == 2 * (6 + 3)  # kept
    again = json.loads((tmp_path / "out/baselines.json").read_text())["rows"][1]
    assert again["seconds"] == by_method["guess"]["seconds"]


def test_networks_without_weights_are_left_out_and_said_so(guess: Guess, tmp_path: Path) -> None:
    few = ("--count", "1", "--many", "1", "--interpolation", "0", "--queries", "16", "--bank", "1")
    missing = run(tmp_path, "--method", "vec2face", *few).exception
    assert isinstance(missing, InvalidInputError) and "id3pm baseline train vec2face" in str(missing)


def test_a_photograph_without_a_face_is_named(guess: Guess, tmp_path: Path) -> None:
    few = ("--method", "gaussian", "--count", "1", "--many", "1", "--interpolation", "0", "--queries", "7")
    assert run(tmp_path, *few).exit_code == 0
    Image.new("RGB", (8, 8)).save(tmp_path / "photographs/0.png")
    with pytest.raises(InvalidInputError, match="0.png shows no face that can be found"):
        raise run(tmp_path, *few).exception or AssertionError


def test_too_few_people_are_refused(guess: Guess, tmp_path: Path) -> None:
    found = run(tmp_path, "--count", "59").exception
    assert isinstance(found, InvalidInputError) and "59 targets and strangers: the data set holds out 60" in str(found)
