"""`id3pm evaluate`: the files it leaves, what it refuses, and dlib."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib
import numpy as np
import pytest
from click.testing import CliRunner, Result
from made_up_people import ColorPipeline, color_of, people, replace_engines, write_people
from numpy.typing import NDArray
from PIL import Image
from skimage import data
from tiny_bundle import write_tiny_bundle

from id3pm.errors import InvalidInputError, InvalidOptionError, MissingExtraError
from id3pm.evaluation.commands import evaluate_group
from id3pm.evaluation.dlib_judge import DlibJudge
from id3pm.evaluation.identity import commands
from id3pm.evaluation.identity.photographs import People
from id3pm.evaluation.super_resolution import command
from id3pm.formats.photo_decoding import decode_photo

PEOPLE = 20


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> ColorPipeline:
    fake = ColorPipeline()
    replace_engines(monkeypatch, fake)
    return fake


def run(folder: Path, *arguments: str, command: str = "identity") -> Result:
    if not (folder / "data").exists():
        write_people(folder / "data", PEOPLE)
    common = ["--data", str(folder / "data"), "--out", str(folder / "out"), "--identities", str(PEOPLE)]
    return CliRunner().invoke(
        evaluate_group, [command, *common, *arguments], catch_exceptions=True, standalone_mode=False
    )


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "out/identity.json").read_text(encoding="utf-8"))
    return found


def test_report_has_numbers_tables_and_pictures(pipeline: ColorPipeline, tmp_path: Path) -> None:
    result = run(tmp_path, "--guidance", "1,2,3", "--steps", "10,25")
    assert result.exit_code == 0, result.exception
    found = report(tmp_path)
    assert found["settings"] == len(found["results"]) == 4
    assert found["subject"]["bundle"] == "made up"
    assert [base["judge"] for base in found["baselines"]] == ["color", "independent"]
    first = found["results"][0]
    assert first["setting"] == {
        "sampler": "ddpm",
        "steps": 25,
        "guidance_scale": 2.0,
        "spacing": "uniform",
        "guidance_low": 0,
        "guidance_high": 1_000_000,
    }
    assert first["evaluations"] == 50
    assert first["measurements"][1]["verification"]["accuracy"] == 1.0
    faceless = next(row for row in found["results"] if row["setting"]["guidance_scale"] == 3.0)
    assert faceless["measurements"][0]["similarity"]["mean"] is None
    table = (tmp_path / "out/identity.md").read_text(encoding="utf-8").splitlines()
    by_guidance = table[table.index("## ddpm, 25 steps, by guidance scale") + 2 :][:5]
    assert [line.split(" | ")[0] for line in by_guidance] == [
        "| guidance",
        "|---|---|---|---|---|---|---|---|---|",
        "| 1",
        "| 2",
        "| 3",
    ]
    assert by_guidance[3].startswith("| 2 | 50 | 1.000 ± 0.000 |") and by_guidance[3].endswith("| 0.0% |")
    assert "no face" in by_guidance[4] and by_guidance[4].endswith("| 100.0% |")
    assert [line.split(" | ")[0] for line in table[-2:]] == ["| 10", "| 25"]
    for name in ("identity.png", "faces.png"):
        with Image.open(tmp_path / "out" / name) as picture:
            assert np.asarray(picture).std() > 10
    assert not list((tmp_path / "out").glob(".*"))


@pytest.fixture
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take seconds."""
    for slow in ("plot_identity", "plot_faces"):
        monkeypatch.setattr(commands.reports, slow, lambda *arguments: None)


@pytest.mark.usefixtures("no_plots")
def test_guidance_intervals_are_a_series_with_their_cost(pipeline: ColorPipeline, tmp_path: Path) -> None:
    intervals = ["--interval", "200-799", "--interval", "0-499"]
    result = run(tmp_path, "--guidance", "2", "--steps", "10,20", "--at-steps", "10", *intervals)
    assert result.exit_code == 0, result.exception
    assert [row["evaluations"] for row in report(tmp_path)["results"]] == [20, 40, 16, 15]
    table = (tmp_path / "out/identity.md").read_text(encoding="utf-8").splitlines()
    title = "## ddpm, 10 steps, guidance scale 2, by the timesteps with guidance"
    rows = table[table.index(title) + 4 :]
    assert [row.split(" | ")[:2] for row in rows] == [["| 0 .. 499", "15"], ["| all", "20"], ["| 200 .. 799", "16"]]
    assert not any("0 .. 499" in row for row in table[: table.index(title)])  # other series are guided at every step


def test_presets_are_compared_with_the_papers(pipeline: ColorPipeline, tmp_path: Path) -> None:
    result = run(tmp_path, "--timed", "2", command="presets")
    assert result.exit_code == 0, result.exception
    found = json.loads((tmp_path / "out/presets.json").read_text(encoding="utf-8"))
    paper, balanced, fast = found["presets"]
    assert [paper["preset"], balanced["preset"], fast["preset"]] == ["paper", "balanced", "fast"]
    assert paper["base"]["steps"] == 250 and paper["evaluations"] == 500
    assert [row["agreement"][0]["mean"] for row in found["presets"]] == pytest.approx([1.0, -1.0, 1.0], abs=1e-3)
    assert fast["measurements"][1]["similarity"]["mean"] == pytest.approx(1.0, abs=1e-3)
    assert min(row["seconds_per_image"] for row in found["presets"]) > 0
    rows = (tmp_path / "out/presets.md").read_text(encoding="utf-8").splitlines()[-3:]
    assert rows[0].startswith("| `paper` | ddpm, 250 steps, guidance 2 | ddpm, 250 steps | 500 |")
    assert " 1.0x | 1.000 |" in rows[0] and " -1.000 |" in rows[1]


@pytest.mark.usefixtures("no_plots")
def test_finished_settings_are_reported_before_the_last_is_done(pipeline: ColorPipeline, tmp_path: Path) -> None:
    pipeline.fail_at = 1
    assert isinstance(
        run(tmp_path, "--guidance", "1,2", "--steps", "25").exception, SystemExit | KeyboardInterrupt | Exception
    )
    assert len(report(tmp_path)["results"]) == 1 and report(tmp_path)["settings"] == 2
    assert run(tmp_path, "--guidance", "1,2", "--steps", "25").exit_code == 0
    assert len(report(tmp_path)["results"]) == 2


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--steps", "0"], InvalidOptionError, "steps=0: must be between"),
        (["--guidance", "99"], InvalidOptionError, "guidance_scale=99"),
        (["--identities", "30"], InvalidInputError, "30 identities: the data set holds out 20"),
        (["--guidance", "one"], Exception, "'one': give numbers separated by commas"),
        (["--interval", "200"], Exception, "'200': give the first and the last timestep, such as 200-800"),
        (["--interval", "800-200"], InvalidOptionError, "guidance_low=800, guidance_high=200: need 0 <= low <= high"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_generated(
    pipeline: ColorPipeline, tmp_path: Path, arguments: list[str], error: type[Exception], message: str
) -> None:
    result = run(tmp_path, *arguments)
    assert isinstance(result.exception, error)
    assert message in str(result.exception)
    assert pipeline.made == 0


@pytest.mark.parametrize("missing", ["dlib", "face_recognition_models"])
def test_missing_dlib_names_the_extra_and_the_way_around(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dlib", None if missing == "dlib" else SimpleNamespace(__version__="1"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"\[evaluate\].*--no-independent"):
        DlibJudge(SimpleNamespace(id_vector_model="sface"), "key")  # type: ignore[arg-type]


def test_dlib_knows_a_person_again_at_64_px() -> None:
    pytest.importorskip("dlib", reason="the extra evaluate")
    (file,) = Path(matplotlib.get_data_path()).glob("sample_data/*.jpg")
    sample = decode_photo(file.read_bytes())
    # Crops of 192 and 384 px and the faces in them, as the detector draws its boxes.
    portrait, portrait_box = data.astronaut()[20:212, 128:320], (50, 43, 90, 114)
    other, other_box = sample[40:424, 90:474], (93, 80, 170, 213)

    def vectors(image: NDArray[np.uint8], box: tuple[float, ...], faces: int = 1) -> NDArray[np.float32]:
        found = np.array([[*box, *[0.0] * 10, 0.9]] * faces, np.float32).reshape(faces, 15)
        stage = SimpleNamespace(id_vector_model="sface", detect=lambda images: [found] * len(images))
        return DlibJudge(stage, "key").embed(image[None])  # type: ignore[arg-type]

    small = np.asarray(Image.fromarray(portrait).resize((64, 64), Image.Resampling.BOX))
    person = vectors(portrait, portrait_box)
    again = vectors(small, tuple(side / 3 for side in portrait_box))
    other_person = vectors(other, other_box)
    # dlib's own limit for one person is a distance of 0.6.
    assert np.linalg.norm(person - again) < 0.6 < np.linalg.norm(person - other_person)
    faceless = vectors(portrait, portrait_box, faces=0)
    assert faceless.shape == (1, 128) and np.isnan(faceless).all()


def test_super_resolution_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_bundle(tmp_path / "bundle")
    write_people(tmp_path / "data", 3)
    load = command.shards.load

    def at_16_px(folder: Path, split: Any) -> dict[str, Any]:
        arrays = load(folder, split)
        images = arrays["images"].repeat(2, axis=1).repeat(2, axis=2)
        images[:, ::3] //= 2  # stripes, which no method gets quite right
        return {**arrays, "images": images}

    monkeypatch.setattr(command.shards, "load", at_16_px)
    replace_engines(monkeypatch, ColorPipeline())
    monkeypatch.setattr(command.FaceStage, "load", lambda folder, threads: None)
    arguments = [
        "--bundle",
        tmp_path / "bundle",
        "--data",
        tmp_path / "data",
        "--out",
        tmp_path / "out",
        "--steps",
        "1",
    ]
    result = CliRunner().invoke(evaluate_group, ["super-resolution", *map(str, arguments)], standalone_mode=False)
    assert result.exit_code == 0, result.exception
    found = json.loads((tmp_path / "out/super_resolution.json").read_text(encoding="utf-8"))
    faces, photographs = found["comparisons"]
    assert (faces["sizes"], faces["count"]) == ([8, 16], 3)
    assert (photographs["sizes"], photographs["count"]) == ([16, 32], 16)
    assert faces["qualities"][0]["identity"] > 0.99 and photographs["qualities"][0]["identity"] is None
    table = (tmp_path / "out/super_resolution.md").read_text(encoding="utf-8")
    assert "| 3 held-out faces | 8 -> 16 | lanczos |" in table and "| 16 photographs | 16 -> 32 | network |" in table
    with Image.open(tmp_path / "out/super_resolution.png") as picture:
        assert np.asarray(picture).std() > 10
    with pytest.raises(InvalidInputError, match="has no pictures"):
        command._pictures(tmp_path / "data")


def test_photographs_are_measured_and_no_picture_is_kept(
    pipeline: ColorPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(np.full((40, 40, 3), 60 * number + 20, np.uint8)).save(folder / f"{number}.png")
    vectors = people(3)
    monkeypatch.setattr(
        commands, "people_of", lambda pictures, stage: People(list(pictures), color_of(vectors), vectors)
    )
    arguments = ["photographs", str(folder), "--out", str(tmp_path / "out"), "--seeds", "2"]
    result = CliRunner().invoke(evaluate_group, arguments, catch_exceptions=False, standalone_mode=False)
    assert result.exit_code == 0
    found = json.loads((tmp_path / "out/photographs.json").read_text(encoding="utf-8"))
    assert [one["name"] for one in found["people"][:3]] == ["0.png", "1.png", "2.png"]
    assert [mean["judge"] for mean in found["means"]] == ["color", "independent"]
    assert found["means"][0]["similarity"] == pytest.approx(1.0, abs=1e-3)
    assert found["steps"] == 10 and found["seeds"] == 2
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["photographs.json"]
    (tmp_path / "empty").mkdir()
    refused = CliRunner().invoke(evaluate_group, ["photographs", str(tmp_path / "empty")])
    assert isinstance(refused.exception, InvalidInputError) and "has no pictures" in str(refused.exception)
