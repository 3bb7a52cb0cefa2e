"""`id3pm evaluate quality` with made-up people: tables, floor, diversity, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from made_up_people import ColorJudge, ColorPipeline, color_of, people, replace_engines, write_people
from numpy.typing import NDArray

from id3pm.errors import InvalidInputError, MissingExtraError
from id3pm.evaluation import options
from id3pm.evaluation.commands import evaluate_group
from id3pm.evaluation.quality import command
from id3pm.evaluation.quality import diversity as module
from id3pm.evaluation.quality.diversity import CEILING, FLOOR, altered, diversity
from id3pm.evaluation.quality.judges import PairJudge
from id3pm.formats import datasets


class ColorNetwork:
    """The mean colour as features."""

    name, key = "colour", "colour"
    frechet_name, kernel_name = "Frechet distance", "kernel distance"

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return images.mean(axis=(1, 2)).astype(np.float32)


class ShiftedModel(ColorJudge):
    """A `PairModel` with vectors around one that is longer than they are; it sees no face in black pictures."""

    def __init__(self) -> None:
        super().__init__(centred=True)
        self.name = self.key = "shifted"

    def views(self, images: list[NDArray[np.uint8]], aligned: bool) -> NDArray[np.float32]:
        vectors = self.embed(np.stack(images)) + np.float32([9.0, 0.0, 0.0])
        return np.stack([vectors, np.zeros_like(vectors)], axis=1)


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> ColorPipeline:
    fake = ColorPipeline()
    replace_engines(monkeypatch, fake)
    monkeypatch.setattr(command, "EfficientNetLite0", ColorNetwork)
    monkeypatch.setattr(command, "landmark_look", lambda stage, threads, notes: notes.append("no landmarks"))
    return fake


def run(folder: Path, *arguments: str) -> Result:
    if not (folder / "data").exists():
        write_people(folder / "data", 60)
    common = ["--data", str(folder / "data"), "--out", str(folder / "out"), "--people", "3", "--seeds", "2"]
    return CliRunner().invoke(evaluate_group, ["quality", *common, *arguments], standalone_mode=False)


def test_table_has_the_floor_and_a_row_per_guidance_scale(pipeline: ColorPipeline, tmp_path: Path) -> None:
    result = run(tmp_path, "--count", "30", "--guidance", "1,2")
    assert result.exit_code == 0, result.exception
    found = json.loads((tmp_path / "out/quality.json").read_text())
    real, opposite, same = found["rows"]
    assert same["quality"]["frechet"] == pytest.approx(0.0, abs=1e-3)  # at guidance 2 the person's own picture
    assert same["quality"]["precision"] == same["quality"]["recall"] == 1.0
    assert opposite["quality"]["frechet"] > 1.0 and real["quality"]["frechet"] > 1.0
    assert real["quality"]["count"] == 30 and real["diversity"] == {}
    assert same["diversity"]["feature distance"] == pytest.approx([0.0, 0.0, 0.0], abs=1e-6)
    assert same["diversity"]["to the target (color)"] == pytest.approx([0.0, 0.0, 0.0], abs=1e-3)
    assert opposite["diversity"]["to the target (color)"][0] == pytest.approx(2.0, abs=1e-2)
    floor, ceiling = (found["references"][name]["ID distance (color)"][0] for name in (FLOOR, CEILING))
    assert ceiling > floor
    assert found["notes"] == ["no landmarks"]
    table = (tmp_path / "out/quality.md").read_text()
    assert "| images | Frechet distance, colour |" in table and "FID" not in table
    assert "| images | feature distance | ID distance (color) |" in table
    made = pipeline.made
    assert run(tmp_path, "--count", "30", "--guidance", "2").exit_code == 0 and pipeline.made == made


def test_more_models_judge_identity_less_the_mean_of_other_people(
    pipeline: ColorPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = SimpleNamespace(name="sface")
    monkeypatch.setattr(options, "FaceEngineModel", lambda repository, threads: training)
    asked: list[object] = []

    def open_models(names: object, first: object, threads: object) -> list[object]:
        asked.append(names)
        return [first, ShiftedModel()]

    monkeypatch.setattr(options, "open_models", open_models)
    result = run(tmp_path, "--count", "30", "--guidance", "1,2", "--fr-model", "dlib")
    assert result.exit_code == 0, result.exception
    found = json.loads((tmp_path / "out/quality.json").read_text())
    assert asked == [("dlib",)]
    _, opposite, same = found["rows"]
    assert same["diversity"]["to the target (shifted)"] == pytest.approx([0.0, 0.0, 0.0], abs=1e-3)
    assert opposite["diversity"]["to the target (shifted)"][0] > 1.5  # with the mean in them all would be near 0
    assert opposite["diversity"]["ID distance (shifted)"][0] == pytest.approx(0.0, abs=1e-3)
    floor, ceiling = (found["references"][name]["ID distance (shifted)"][0] for name in (FLOOR, CEILING))
    assert ceiling > 0.5 > floor
    table = (tmp_path / "out/quality.md").read_text()
    assert "| ID distance (color) | ID distance (shifted) | to the target (color) | to the target (shifted) |" in table


def test_pictures_without_a_face_have_no_vector_and_no_part_in_the_mean() -> None:
    pictures = color_of(people(8))
    black = np.zeros((1, 8, 8, 3), np.uint8)
    judge = PairJudge(ShiftedModel(), np.concatenate([pictures, black]))
    same = PairJudge(ShiftedModel(), pictures)
    seen = judge.embed(np.concatenate([pictures[:1], black]))
    np.testing.assert_allclose(seen[0], same.embed(pictures[:1])[0])
    assert np.isnan(seen[1]).all() and judge.key != same.key


def test_people_of_the_training_split_are_shown_on_request(pipeline: ColorPipeline, tmp_path: Path) -> None:
    """As in Table 4 of the paper, whose 10000 images of FFHQ its networks were trained on."""
    write_people(tmp_path / "data", 60)
    with np.load(tmp_path / "data/shard_00000.npz") as shard:
        arrays = dict(shard)
    datasets.write_shard(tmp_path / "data", 0, {**arrays, "held_out": np.arange(60) >= 24})
    assert run(tmp_path, "--count", "12", "--guidance", "2", "--split", "train").exit_code == 0
    found = json.loads((tmp_path / "out/quality.json").read_text())
    assert found["split"] == "train" and found["rows"][1]["quality"]["frechet"] == pytest.approx(0.0, abs=1e-3)
    assert "12 people that the networks were trained on" in (tmp_path / "out/quality.md").read_text()
    assert "has 24 in its train split" in str(run(tmp_path, "--count", "13", "--split", "train").exception)


def test_attributes_of_other_people_give_rows_of_their_own(pipeline: ColorPipeline, tmp_path: Path) -> None:
    result = run(tmp_path, "--count", "10", "--guidance", "2", "--attributes")
    assert isinstance(result.exception, InvalidInputError)
    assert "no attributes: measure them with id3pm measure-dataset" in str(result.exception)
    given: list[Any] = []
    generate = pipeline.generate_64

    def watched(vectors: NDArray[np.float32], seeds: list[int], **options: Any) -> NDArray[np.uint8]:
        given.append(options.pop("attributes", None))
        return generate(vectors, seeds, **options)

    pipeline.generate_64 = watched  # type: ignore[method-assign]
    with_attributes(tmp_path / "data")
    result = run(tmp_path, "--count", "10", "--guidance", "2", "--attributes", "--out", str(tmp_path / "new"))
    assert result.exit_code == 0, result.exception
    rows = json.loads((tmp_path / "new/quality.json").read_text())["rows"]
    assert [row["label"] for row in rows] == ["Real images", "guidance 2", "guidance 2, attributes"]
    assert given[:2] == [None, None]
    # The ten other people, but for the one whose face could not be measured.
    assert given[2][:, 0].tolist() == [float(row) for row in (*range(11, 20), 11)]
    assert len(given[3]) == 6


def with_attributes(folder: Path) -> None:
    """Writes attributes [60, 2] into the data set: the person's number twice; person 10 could not be measured."""
    shard = datasets.shard_path(folder, 0)
    with np.load(shard) as arrays:
        attributes = np.repeat(np.arange(60, dtype=np.float32)[:, None], 2, axis=1)
        attributes[10] = -1.0
        datasets.write_shard(folder, 0, {**arrays, "attributes": attributes})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--count", "31"],
            "31 images need 62 people, half of them for the floor: the data set has 60 in its test split",
        ),
        (["--guidance", "one"], "'one': give numbers separated by commas"),
        (["--guidance", "99"], "guidance_scale=99"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_generated(
    pipeline: ColorPipeline, tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = run(tmp_path, *arguments)
    assert message in str(result.exception) and pipeline.made == 0


def test_diversity_is_measured_within_each_person() -> None:
    images = [np.zeros((3, size, size, 3), np.uint8) for size in (4, 5)]  # people may have pictures of their own size
    angles = np.radians([[0.0, 0.0, 0.0], [0.0, 60.0, 120.0]])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=-1).astype(np.float32)
    yaw = np.array([5.0, 5.0, 5.0, -10.0, 0.0, np.nan])

    def look(rows: NDArray[np.uint8]) -> dict[str, NDArray[np.float64]]:
        assert len(rows) == 3
        return {"yaw": yaw[:3] if rows.shape[1] == 4 else yaw[3:], "smile": np.full(3, np.nan)}

    own = np.array([[0.0, 1.0], [1.0, 0.0]], np.float32)
    found = diversity(images, vectors, {"sface": vectors}, look, None, {"sface": own})
    assert found["to the target (sface)"][0] == pytest.approx((1.0 + (0.0 + 0.5 + 1.5) / 3) / 2)
    assert found["ID distance (sface)"][0] == pytest.approx((0.0 + (0.5 + 0.5 + 1.5) / 3) / 2)
    assert found["pose distance"][0] == pytest.approx((0.0 + 10.0) / 2)
    assert np.isnan(found["expression distance"][0])
    perceptual = SimpleNamespace(name="LPIPS", pairs=lambda person: np.array([0.1, 0.2, 0.3]))
    found = diversity(images, vectors, {}, None, perceptual)  # type: ignore[arg-type]
    assert found["LPIPS"][0] == pytest.approx(0.2)


def test_the_floor_alters_one_picture_without_moving_it() -> None:
    picture = np.random.default_rng(0).integers(0, 200, (64, 64, 3), np.uint8)
    made = altered(picture, 3)
    assert made.shape == (3, 64, 64, 3)
    np.testing.assert_allclose(made[0], 0.8 * picture, atol=1.0)  # darker, and sharp
    assert made[2].mean() > picture.mean() > made[0].mean()
    assert np.abs(np.diff(made[2].astype(float), axis=0)).mean() < np.abs(np.diff(picture.astype(float), axis=0)).mean()


def test_missing_landmarks_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(threads: int | None) -> Any:
        raise MissingExtraError("face landmarks need OpenVINO")

    monkeypatch.setattr(module, "FaceMesh", missing)
    notes: list[str] = []
    assert module.landmark_look(SimpleNamespace(), 1, notes) is None  # type: ignore[arg-type]
    assert notes == ["pose and expression were not measured: face landmarks need OpenVINO"]
