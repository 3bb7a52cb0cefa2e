"""`id3pm analyse` from photographs to a report that stands on its own."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from id3pm.errors import Id3pmError, MissingExtraError
from id3pm.evaluation.robustness.commands import analyse_command
from id3pm.formats import datasets as shards
from id3pm.formats.images import GENERATED_XMP, XMP_KEY
from id3pm.pipeline import Pipeline
from tests.evaluation.robustness.made_up_model import PEOPLE, MadeUpPipeline


@pytest.fixture
def repository(face_folder: Path, pipeline: MadeUpPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(Pipeline, "load", lambda *args, **options: pipeline)
    shutil.copytree(face_folder, tmp_path / "repository/face_embedding/1/engine")
    return tmp_path / "repository"


def analyse(repository: Path, *words: Any) -> str:
    arguments = [str(word) for word in ("--repository", repository, *words)]
    run = CliRunner().invoke(analyse_command, arguments, catch_exceptions=False, standalone_mode=False)
    assert run.exit_code == 0
    return run.output


def test_a_student_is_analysed_in_its_own_steps(repository: Path, pipeline: MadeUpPipeline, tmp_path: Path) -> None:
    pipeline.base_manifest.diffusion.student_timesteps = (627, 871)
    analyse(repository, PEOPLE / "03.png", "--family", "noise", "--no-independent", "--out", tmp_path / "out")
    assert pipeline.asked and all("preset" not in options for _, _, options in pipeline.asked)


def without_face(folder: Path) -> Path:
    folder.mkdir()
    Image.new("RGB", (64, 64), "grey").save(folder / "a <b>wall.png")
    return folder


def test_the_report_stands_on_its_own(repository: Path, pipeline: MadeUpPipeline, tmp_path: Path) -> None:
    out = tmp_path / "out"
    pictures = without_face(tmp_path / "pictures")
    shutil.copy(PEOPLE / "05.png", pictures / "drawing.png")
    (tmp_path / "same").mkdir()
    shutil.copy(PEOPLE / "04.png", tmp_path / "same/summer.png")
    asked = ("--family", "noise", "--family", "style", "--seed", 5, "--steps", 3, "--out", out)
    output = analyse(repository, PEOPLE / "03.png", "--picture", pictures, "--same-person", tmp_path / "same", *asked)
    assert f"report: {out / 'report.html'}" in output and "still recognises the person" in output
    assert {(seed, options["steps"], options["preset"]) for _, seed, options in pipeline.asked} == {(5, 3, "fast")}

    numbers = json.loads((out / "analysis.json").read_text())
    person, gallery = numbers["subjects"]
    assert [p["label"] for p in person["pictures"][:2]] == ["original", "summer"]
    assert [p["family"] for p in person["pictures"]] == ["original", "photographs"] + ["noise"] * 6 + ["style"] * 12 + [
        "mean"
    ]
    assert set(person["pictures"][0]) == {"family", "label", "sface", "dlib"}
    assert person["pictures"][0]["sface"]["drift"] == 0
    by_label = {p["label"]: p for p in gallery["pictures"]}
    assert by_label["a <b>wall"]["sface"] == {"drift": None, "kept": None, "own": None}
    assert by_label["drawing"]["sface"]["own"] > 0 and by_label["drawing"]["sface"]["kept"] is None
    # The made-up model answers with the face of 03 itself: what is generated is the original.
    assert person["pictures"][0]["sface"]["kept"] < 40
    assert {t["judge"]: 60 < t["degrees"] < 70 for t in numbers["thresholds"]} == {"sface": True, "dlib": True}

    page = (out / "report.html").read_text()
    assert not re.findall(r"<script|<link|@import|url\(|src=\"(?!data:image/)|https?://", page)
    assert "a &lt;b&gt;wall" in page and "<b>wall" not in page
    generated = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    usable = sum(p["sface"]["own"] is not None for s in numbers["subjects"] for p in s["pictures"])
    assert len(generated) == usable > 10
    for data in {*generated}:
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert image.text[XMP_KEY] == GENERATED_XMP and image.size == (64, 64)  # type: ignore[attr-defined]
    for name in ("03.png", "pictures.png"):
        with Image.open(out / name) as sheet:
            assert sheet.text[XMP_KEY] == GENERATED_XMP and min(sheet.size) > 200  # type: ignore[attr-defined]
    assert "no face found" in page


def test_thresholds_are_measured_on_data_and_used_again(repository: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_data(data)
    asked = (PEOPLE / "03.png", "--family", "expression", "--no-independent")
    analyse(repository, *asked, "--data", data, "--people", 20, "--out", tmp_path / "first")
    analyse(repository, *asked, "--thresholds", tmp_path / "first/thresholds.json", "--out", tmp_path / "second")
    first, second = (json.loads((tmp_path / name / "analysis.json").read_text()) for name in ("first", "second"))
    assert first == second
    (threshold,) = first["thresholds"]
    assert (threshold["judge"], threshold["people"], threshold["data"]) == ("sface", 20, "data")


def test_without_thresholds_there_are_angles_but_no_verdicts(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "none.json").write_text("[]")
    output = analyse(
        repository,
        PEOPLE / "03.png",
        "--family",
        "expression",
        "--thresholds",
        tmp_path / "none.json",
        "--out",
        tmp_path,
    )
    assert "no measured threshold is known" in output and "dlib is left out" in output
    page = (tmp_path / "report.html").read_text()
    assert 'class="open"' in page and 'class="same"' not in re.sub(r"<p.*?</p>", "", page, flags=re.S)


def test_two_models_stand_below_each_other_and_one_is_told_with_its_published_threshold(
    repository: Path, tmp_path: Path
) -> None:
    shutil.copytree(repository, tmp_path / "second")
    asked = (PEOPLE / "03.png", "--family", "expression", "--no-independent", "--out", tmp_path)
    analyse(repository, "--repository", tmp_path / "second", *asked)
    numbers = json.loads((tmp_path / "analysis.json").read_text())
    assert [s["model"] for s in numbers["subjects"]] == [f"sface ({repository})", f"sface ({tmp_path / 'second'})"]
    analyse(repository, *asked[:-1], tmp_path / "one")
    with Image.open(tmp_path / "03.png") as two, Image.open(tmp_path / "one/03.png") as one:
        assert two.height - one.height > 112  # a row of generated images more
    numbers = json.loads((tmp_path / "one/analysis.json").read_text())
    assert numbers["thresholds"][0]["published"]["cosine"] == 0.363
    assert all(line["recognised_published"] is not None for line in numbers["summary"])
    page = (tmp_path / "one/report.html").read_text()
    assert "in brackets by the published one" in page and "LFW, accuracy 99.60" in page and "sface, published" in page


def test_drawings_of_the_person_are_compared_with_the_person(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "drawn").mkdir()
    shutil.copy(PEOPLE / "05.png", tmp_path / "drawn/oil on canvas.png")
    asked = ("--family", "style", "--no-independent", "--out", tmp_path)
    analyse(repository, PEOPLE / "03.png", "--drawings", tmp_path / "drawn", *asked)
    (person,) = json.loads((tmp_path / "analysis.json").read_text())["subjects"]
    last = person["pictures"][-1]  # and no mean: only drawings were shown
    assert (last["family"], last["label"]) == ("style", "oil on canvas") and last["sface"]["drift"] > 30


def test_a_missing_library_is_noticed_before_the_work(
    repository: Path, pipeline: MadeUpPipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"\[evaluate\]"):
        analyse(repository, PEOPLE / "03.png", "--out", tmp_path / "out")
    assert not pipeline.asked and not (tmp_path / "out").exists()


def test_dlib_is_a_witness_where_it_is_installed(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dlib", None)
    asked = (PEOPLE / "03.png", "--family", "expression", "--out", tmp_path)
    assert "no independent judge: the independent evaluation model needs dlib" in analyse(repository, *asked)
    assert set(json.loads((tmp_path / "analysis.json").read_text())["summary"][0]) >= {"judge", "recognised"}
    with pytest.raises(MissingExtraError, match="needs dlib"):
        analyse(repository, *asked, "--independent")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("PICTURES",), r"a <b>wall\.png: no face was found"),
        ((PEOPLE, "--same-person", PEOPLE), "--same-person with 8 photographs"),
        ((PEOPLE, "--drawings", PEOPLE), "--drawings with 8 photographs"),
        ((PEOPLE / "03.png", "--data", "DATA", "--people", 99), "holds out 20"),
        (("EMPTY",), "the folder has no pictures"),
    ],
)
def test_what_cannot_be_analysed_is_refused(
    repository: Path, tmp_path: Path, words: tuple[Any, ...], message: str
) -> None:
    folders = {"PICTURES": without_face(tmp_path / "pictures"), "DATA": tmp_path / "data", "EMPTY": tmp_path / "empty"}
    write_data(tmp_path / "data")
    folders["EMPTY"].mkdir()
    with pytest.raises(Id3pmError, match=message):
        analyse(repository, *(folders.get(word, word) for word in words), "--out", tmp_path, "--no-independent")


def write_data(folder: Path) -> None:
    """Twenty people held out: the eight there are, lighter and darker."""
    faces = [np.asarray(Image.open(file)) for file in sorted(PEOPLE.glob("*.png"))]
    images = np.stack([(face * gain).astype(np.uint8) for gain in (1.0, 0.8, 0.6) for face in faces])[:20]
    nothing = np.zeros((20, 1), np.float32)
    shards.begin(folder, {"kind": "made up"})
    columns = {"images": images, "vectors": nothing, "flipped_vectors": nothing, "detections": nothing}
    shards.write_shard(folder, 0, {**columns, "index": np.arange(20), "held_out": np.ones(20, bool)})
