"""`id3pm evaluate verification` with made-up people: the table, what is generated, what is kept, what is refused."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from made_up_people import ColorJudge, ColorPipeline, color_of, people, write_people
from numpy.typing import NDArray

from id3pm.errors import EngineError, InvalidInputError
from id3pm.evaluation import options
from id3pm.evaluation.baselines.commands import baseline_group
from id3pm.evaluation.baselines.nbnet import NbNet
from id3pm.evaluation.baselines.weights import save_weights
from id3pm.evaluation.commands import evaluate_group
from id3pm.evaluation.verification import sets
from id3pm.evaluation.verification.fr_models import FaceEngineModel, main_face, open_models
from id3pm.formats.images import encode_png
from id3pm.formats.photo_decoding import decode_photo
from id3pm.samples import PHOTOGRAPH


class ColorModel(ColorJudge):
    """A `PairModel`: the colour of picture and mirror image."""

    def views(self, images: Sequence[NDArray[np.uint8]], aligned: bool) -> NDArray[np.float32]:
        vectors = np.concatenate([self.embed(image[None]) for image in images])
        return np.stack([vectors, vectors], axis=1)

    def id_vectors(self, views: NDArray[np.float32]) -> NDArray[np.float32]:
        return views[:, 0]


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> ColorPipeline:
    fake = ColorPipeline()
    monkeypatch.setattr(options.Pipeline, "load", lambda repository, threads: fake)
    training = ColorModel()
    training.name = "sface"
    monkeypatch.setattr(options, "FaceEngineModel", lambda repository, threads: training)
    monkeypatch.setattr(options, "open_models", lambda names, first, threads: [first, ColorModel(independent=True)])
    monkeypatch.setattr(sets, "altered", lambda images: images)  # brighter colours would be other people
    return fake


def run(folder: Path, *arguments: str) -> Result:
    if not (folder / "data").exists():
        write_people(folder / "data", 40)
    common = ["--set", f"data={folder / 'data'}", "--out", str(folder / "out")]
    return CliRunner().invoke(evaluate_group, ["verification", *common, *arguments], standalone_mode=False)


def test_table_has_a_row_for_real_images_and_one_per_guidance_scale(pipeline: ColorPipeline, tmp_path: Path) -> None:
    result = run(tmp_path, "--guidance", "1,2,3", "--full")
    assert result.exit_code == 0, result.exception
    found = json.loads((tmp_path / "out/verification.json").read_text())
    real, opposite, same, faceless = [[one["mean"] for one in row["accuracies"][0]] for row in found["rows"]]
    assert real == same == [1.0, 1.0]
    assert max(opposite) < 0.6 and faceless == [0.0, 0.0]
    assert found["sets"] == [{"name": "data", "pairs": 80, "of": 80, "pictures": 80}]
    assert [one["undecided"] for one in found["rows"][3]["accuracies"][0]] == [80, 80]
    table = (tmp_path / "out/verification.md").read_text()
    assert "| images | data: sface | data: independent |" in table
    assert "| guidance 3 | 0.00% ± 0.00% (80) |" in table
    assert pipeline.made == 3 * 40  # one image for each replaced picture, not for each pair


def test_older_methods_have_rows_in_the_same_table(pipeline: ColorPipeline, tmp_path: Path) -> None:
    write_people(tmp_path / "data", 40)
    asked = ["verification", "--set", f"data={tmp_path / 'data'}", "--out", str(tmp_path / "out"), "--full"]
    asked += ["--method", "nbnet", "--weights", str(tmp_path)]
    result = CliRunner().invoke(baseline_group, asked, standalone_mode=False)
    assert "there are no weights" in str(result.exception) and pipeline.made == 0
    facts = {"method": "nbnet", "id_vector_model": "sface", "steps": 7, "batch size": 2}
    facts["data"] = {"name": "made up", "people": 5, "pictures of each": 4}
    network = {"identity_dim": 3, "blocks": "B", "channels": 256}
    save_weights(tmp_path / "nbnet.safetensors", NbNet(3, "B"), {**facts, "network": network})
    result = CliRunner().invoke(baseline_group, asked, standalone_mode=False)
    assert result.exit_code == 0, result.exception
    found = json.loads((tmp_path / "out/verification.json").read_text())
    assert [row["label"] for row in found["rows"]] == ["Real images", "NbNet", "guidance 2"] and found["asked"] == 3
    accuracies = [row["accuracies"][0][0]["mean"] for row in found["rows"]]
    assert (
        accuracies[0] == accuracies[2] == 1.0 and accuracies[1] < 0.7
    )  # an untrained network cannot tell people apart
    trained = "NbNet: trained 7 steps of 2 on 5 people with 4 pictures each of the data set made up\n"
    assert trained in (tmp_path / "out/verification.md").read_text()


def test_a_second_run_generates_nothing_again(pipeline: ColorPipeline, tmp_path: Path) -> None:
    assert run(tmp_path, "--guidance", "2").exit_code == 0
    made = pipeline.made
    assert run(tmp_path, "--guidance", "2", "--protocol", "insightface").exit_code == 0
    assert pipeline.made == made > 0
    assert json.loads((tmp_path / "out/verification.json").read_text())["protocol"] == "insightface"


def test_finished_rows_are_reported_before_the_last_is_done(pipeline: ColorPipeline, tmp_path: Path) -> None:
    pipeline.fail_at = 1
    assert isinstance(run(tmp_path, "--guidance", "1,2", "--per-fold", "1").exception, click.Abort)
    found = json.loads((tmp_path / "out/verification.json").read_text())
    assert found["asked"] == 3 and [row["label"] for row in found["rows"]] == ["Real images", "guidance 1"]


@pytest.mark.parametrize(("replace", "seen"), [("first", 3), ("second", 20)])
def test_only_the_picture_that_is_asked_for_is_replaced(
    pipeline: ColorPipeline, tmp_path: Path, replace: str, seen: int
) -> None:
    """Three people are the first pictures of all pairs, twenty the second ones."""
    pictures = [encode_png(image) for image in color_of(people(20))]
    pairs = [(pictures[number % 3], pictures[number]) for number in range(20)]
    file = tmp_path / "x.bin"
    file.write_bytes(pickle.dumps(([one for pair in pairs for one in pair], [number < 3 for number in range(20)]), 4))
    arguments = ["verification", "--set", f"bin={file}", "--out", str(tmp_path / "out"), "--full"]
    result = CliRunner().invoke(
        evaluate_group, [*arguments, "--replace", replace, "--guidance", "2"], standalone_mode=False
    )
    assert result.exit_code == 0, result.exception
    assert pipeline.made == seen


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            ["--set", "lfw"],
            InvalidInputError,
            "--set lfw: give KIND=PATH with a kind of lfw, bin, cfp-ff, cfp-fp, data",
        ),
        (["--set", "agedb=x"], InvalidInputError, "--set agedb=x: give KIND=PATH"),
        (["--set", "bin=/nowhere/x.bin"], InvalidInputError, "/nowhere/x.bin does not exist"),
        (["--guidance", "one"], Exception, "'one': give numbers separated by commas"),
        (["--guidance", "99"], InvalidInputError, "guidance_scale=99"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_generated(
    pipeline: ColorPipeline, tmp_path: Path, arguments: list[str], error: type[Exception], message: str
) -> None:
    result = run(tmp_path, *arguments)
    assert isinstance(result.exception, error) and message in str(result.exception)
    assert pipeline.made == 0


def test_a_picture_that_cannot_be_decoded_is_named(pipeline: ColorPipeline, tmp_path: Path) -> None:
    pictures: list[Any] = [encode_png(image) for image in color_of(people(20))]
    pictures[1] = b"no picture"
    (tmp_path / "broken.bin").write_bytes(pickle.dumps((pictures, [True, False] * 5), 4))
    result = run(tmp_path, "--set", f"bin={tmp_path / 'broken.bin'}")
    assert isinstance(result.exception, InvalidInputError) and str(result.exception).startswith("broken, ")


def test_views_are_those_of_the_face_stage_and_its_mirror_image(face_folder: Path) -> None:
    model = FaceEngineModel(face_folder)
    photo = decode_photo(PHOTOGRAPH.read_bytes())
    views = model.views([photo, np.zeros((64, 64, 3), np.uint8)], aligned=False)
    assert views.shape == (2, 2, 128) and np.isnan(views[1]).all()
    wanted = model.stage.embed_images(photo[None])[0]
    np.testing.assert_array_equal(model.id_vectors(views)[:1].round(5), _unit(wanted.embedding)[None].round(5))  # type: ignore[union-attr]
    original, mirrored = _unit(views[0, 0]), _unit(views[0, 1])
    assert 0.6 < original @ mirrored < 0.9999
    crop = model.manifest.preprocessing.crop(photo, model.main_face(photo))  # type: ignore[arg-type]
    np.testing.assert_allclose(model.views([crop], aligned=True)[0], views[0], rtol=1e-4, atol=1e-5)


def _unit(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    return vector / np.linalg.norm(vector)


def test_the_main_face_is_large_and_in_the_middle() -> None:
    faces = np.zeros((2, 15), np.float32)
    faces[:, :4] = [[0, 0, 60, 60], [75, 75, 50, 50]]  # the larger one in the corner of 200 x 200
    assert main_face(faces, (200, 200)) is not None
    np.testing.assert_array_equal(main_face(faces, (200, 200)), faces[1])
    assert main_face(faces[:0], (200, 200)) is None


def test_fr_models_are_named_once_and_exist(face_folder: Path, tmp_path: Path) -> None:
    training = FaceEngineModel(face_folder)
    with pytest.raises(InvalidInputError, match="sface is in the report already"):
        open_models([str(face_folder)], training)
    with pytest.raises(EngineError, match="--fr-model .*no face models have been built.*or give dlib"):
        open_models([str(tmp_path)], training)
    pytest.importorskip("dlib", reason="the extra evaluate")
    photo = decode_photo(PHOTOGRAPH.read_bytes())
    dlib_model = open_models(["dlib"], training)[1]
    views = dlib_model.views([photo], aligned=False)
    assert views.shape == (1, 2, 128) and np.linalg.norm(views[0, 0] - views[0, 1]) < 0.6
