"""Promises of id3pm.face.manifest, and what FaceStage.load makes of it."""

import dataclasses
import json

import pytest

from id3pm.errors import EngineError, EngineMissingError
from id3pm.face.manifest import FILE_NAME, FaceManifest, PublishedThreshold, read_manifest, write_manifest
from id3pm.face.preprocessing import Preprocessing
from id3pm.face.stage import FaceStage
from id3pm.formats.hashing import file_sha256


@pytest.fixture
def folder(tmp_path):
    """A face engine folder whose models are two text files."""
    (tmp_path / "detector.onnx").write_text("detector")
    (tmp_path / "encoder.onnx").write_text("encoder")
    manifest = FaceManifest(
        id_vector_model="sface",
        identity_dim=128,
        detector="yunet",
        detector_files={"detector.onnx": file_sha256(tmp_path / "detector.onnx")},
        encoder_file="encoder.onnx",
        encoder_sha256=file_sha256(tmp_path / "encoder.onnx"),
        preprocessing=Preprocessing(mean=(1.0, 2.0, 3.0), alignment="box", margin=14.0),
        source="text",
        source_sha256="0" * 64,
        licence="none",
        recipe=1,
        deviations=("none that a test could see",),
        detection_size=640,
        published_threshold=PublishedThreshold(cosine=0.363, source="its authors"),
    )
    write_manifest(tmp_path, manifest)
    return tmp_path


def test_a_manifest_survives_the_round_trip(folder):
    manifest = read_manifest(folder)
    write_manifest(folder, manifest)
    assert read_manifest(folder) == manifest


def test_an_empty_folder_says_how_to_build(tmp_path):
    with pytest.raises(EngineMissingError, match=r"build the face models with id3pm build-faces"):
        FaceStage.load(tmp_path)


def test_a_missing_model_is_named(folder):
    (folder / "encoder.onnx").unlink()
    with pytest.raises(EngineMissingError, match="lack encoder.onnx"):
        read_manifest(folder)


def test_a_changed_model_is_refused(folder):
    (folder / "detector.onnx").write_text("another")
    with pytest.raises(EngineError, match="detector.onnx is not the file its manifest describes"):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"identity_dims": 128}, "has no identity_dims"),
        ({"identity_dim": "128"}, "identity_dim='128': expected int"),
        ({"schema_version": 3}, "schema_version=3"),
        ({"preprocessing": {"men": 1.0}}, "preprocessing: Preprocessing has no men"),
        ({"preprocessing": {"std": 0.0}}, "std=0.0: must be above 0"),
        ({"detection_size": 600}, "detection_size=600: must be null or a multiple of 32"),
        ({"published_threshold": {"cosine": 63, "source": ""}}, "cosine=63: must be between -1 and 1"),
    ],
)
def test_unknown_keys_types_and_versions_are_refused(folder, change, message):
    data = json.loads((folder / FILE_NAME).read_text()) | change
    (folder / FILE_NAME).write_text(json.dumps(data))
    with pytest.raises(EngineError, match=message):
        read_manifest(folder)


def first_form(folder):
    """The folder's manifest as it was written before detectors of several files and other crops than 112x112."""
    data = json.loads((folder / FILE_NAME).read_text())
    ((file, sha256),) = data.pop("detector_files").items()
    del data["preprocessing"], data["deviations"], data["detection_size"], data["published_threshold"]
    return data | {
        "detector_file": file,
        "detector_sha256": sha256,
        "input_mean": 127.5,
        "input_std": 128.0,
        "schema_version": 1,
    }


def test_a_manifest_of_the_first_form_is_read_as_what_it_meant(folder):
    now = read_manifest(folder)
    (folder / FILE_NAME).write_text(json.dumps(first_form(folder)))
    before = read_manifest(folder)
    assert before.preprocessing == Preprocessing(mean=127.5, std=128.0)
    assert before.detection_size is None and before.published_threshold is None
    new = ("preprocessing", "deviations", "detection_size", "published_threshold")
    assert dataclasses.replace(before, **{name: getattr(now, name) for name in new}) == now


@pytest.mark.parametrize("missing", ["detector_sha256", "input_std", "licence"])
def test_an_incomplete_manifest_of_the_first_form_names_what_it_lacks(folder, missing):
    data = first_form(folder)
    del data[missing]
    (folder / FILE_NAME).write_text(json.dumps(data))
    with pytest.raises(EngineError, match=f"needs {missing}"):
        read_manifest(folder)


def test_a_detector_with_a_file_too_few_is_refused(folder):
    write_manifest(folder, dataclasses.replace(read_manifest(folder), detector="mtcnn"))
    with pytest.raises(EngineError, match="face detector mtcnn has 3 files, its manifest names 1"):
        FaceStage.load(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "\udcff"])
def test_a_manifest_that_is_no_json_object_is_refused(folder, text):
    (folder / FILE_NAME).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(EngineError, match="is not"):
        read_manifest(folder)


def test_a_file_that_is_no_model_is_an_error_without_its_path(folder):
    with pytest.raises(EngineError, match="detector.onnx cannot be loaded") as caught:
        FaceStage.load(folder)
    assert str(folder) not in str(caught.value)


def test_an_unknown_detector_is_refused_with_the_known_ones(folder):
    write_manifest(folder, dataclasses.replace(read_manifest(folder), detector="haar"))
    with pytest.raises(EngineError, match="'haar' is unknown; known are mtcnn, scrfd, yunet"):
        FaceStage.load(folder)


def test_a_wrong_dimension_is_refused(face_folder, tmp_path):
    for file in face_folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / FILE_NAME).unlink()
    write_manifest(tmp_path, dataclasses.replace(read_manifest(face_folder), identity_dim=512))
    with pytest.raises(EngineError, match="sface.onnx gives 128 numbers, its manifest says 512"):
        FaceStage.load(tmp_path)
