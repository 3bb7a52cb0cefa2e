"""Promises about insightface model packs, on made-up graphs: the real weights may not be shipped."""

import shutil

import cv2
import numpy as np
import pytest
from made_up_pack import BOX, LANDMARKS, write_pack

from id3pm.errors import EngineError, EngineMissingError, NoFaceError
from id3pm.export.face import build as face_models
from id3pm.face.align import ARCFACE_TEMPLATE, similarity_transform
from id3pm.face.manifest import read_manifest
from id3pm.face.scrfd import Scrfd
from id3pm.face.stage import FaceStage
from id3pm.formats.images import encode_png


@pytest.fixture
def pack(tmp_path):
    return write_pack(tmp_path / "buffalo_tiny")


def scene(*cells, height=320, width=400):
    """A black picture with the 8x8 block at every (column, row) white."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    for column, row in cells:
        image[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 255
    return image


def test_faces_are_decoded_as_scrfd_encodes_them(pack):
    first, second = Scrfd(pack / "det_tiny.onnx", threads=1).detect_batch(np.stack([scene((10, 20)), scene()]))
    assert second.shape == (0, 15)
    (face,) = first
    corner = np.array([80, 160])  # the cell's corner: column 10, row 20, stride 8
    left, top, right, bottom = BOX
    np.testing.assert_allclose(face[:2], corner - 8 * np.array([left, top]))
    np.testing.assert_allclose(face[2:4], 8 * np.array([left + right, top + bottom]))
    np.testing.assert_allclose(face[4:14].reshape(5, 2), corner + 8 * np.array(LANDMARKS))
    assert face[14] == pytest.approx(1 / (1 + np.exp(-(20 * 127.5 / 128 - 18))), abs=1e-5)


def test_sizes_that_no_stride_divides_are_padded(pack):
    detector = Scrfd(pack / "det_tiny.onnx", threads=1)
    whole, padded = (detector.detect_batch(scene((10, 20), width=width)[None])[0] for width in (416, 403))
    np.testing.assert_array_equal(whole, padded)


def test_overlapping_faces_are_suppressed_and_distant_ones_kept(pack):
    detector = Scrfd(pack / "det_tiny.onnx", threads=1)
    (faces,) = detector.detect_batch(scene((10, 20), (11, 20), (30, 5))[None])
    assert sorted(faces[:, 0] + 16) in ([80, 240], [88, 240])


@pytest.mark.parametrize("mxnet", [False, True])
def test_a_pack_becomes_a_face_stage(tmp_path, mxnet):
    pack = write_pack(tmp_path / "buffalo_tiny", mxnet)
    folder, built = face_models.build_face_models(tmp_path / "repository", f"insightface:{pack}")
    assert built
    manifest = read_manifest(folder)
    assert manifest.id_vector_model == "insightface:buffalo_tiny"
    assert (list(manifest.detector_files), manifest.encoder_file) == (["det_tiny.onnx"], "w600k_tiny.onnx")
    assert (manifest.preprocessing.mean, manifest.preprocessing.std) == ((0.0, 1.0) if mxnet else (127.5, 127.5))
    stage = FaceStage.load(folder, threads=1)
    assert (stage.id_vector_model, stage.identity_dim) == ("insightface:buffalo_tiny", 3)
    image = np.full((320, 400, 3), (200, 20, 60), dtype=np.uint8)
    image[scene((20, 20), (21, 20), (20, 21), (21, 21)) > 0] = 255
    found, missed = stage.embed_images(np.stack([image, scene()]))
    assert isinstance(missed, NoFaceError)
    # The mean colour of the crop, RGB; test_insightface_preprocessing.py has a graph like the real ones.
    crop = cv2.warpAffine(
        image, similarity_transform(found.detection[4:14].reshape(5, 2), ARCFACE_TEMPLATE), (112, 112)
    )
    colour = (crop.reshape(-1, 3) - 127.5).mean(axis=0)
    np.testing.assert_allclose(found.embedding, colour / np.linalg.norm(colour), atol=5e-5)


def test_a_face_of_a_pack_that_no_turn_favours_is_refused(tmp_path, pack):
    folder, _ = face_models.build_face_models(tmp_path / "repository", f"insightface:{pack}")
    stage = FaceStage.load(folder, threads=1)
    image = scene((20, 20), (21, 20), (20, 21), (21, 21))
    (found,) = stage.embed_images(image[None])
    assert not isinstance(found, NoFaceError)
    with pytest.raises(NoFaceError, match="which way up it is could not be told"):
        stage.embed(encode_png(image))


def test_an_up_to_date_pack_is_left_alone_and_a_changed_one_rebuilt(tmp_path, pack):
    repository, model = tmp_path / "repository", f"insightface:{pack}"
    assert face_models.build_face_models(repository, model)[1]
    assert not face_models.build_face_models(repository, model)[1]
    other = write_pack(tmp_path / "other" / "buffalo_tiny", mxnet=True)
    assert face_models.build_face_models(repository, f"insightface:{other}")[1]


def test_a_missing_pack_says_where_to_put_it(tmp_path):
    with pytest.raises(EngineMissingError, match=r"no folder .*buffalo_l: download the model pack buffalo_l .* unpack"):
        face_models.build_face_models(tmp_path, f"insightface:{tmp_path / 'buffalo_l'}")


def test_an_incomplete_pack_is_refused_with_what_is_missing(tmp_path, pack):
    (pack / "w600k_tiny.onnx").unlink()
    with pytest.raises(EngineMissingError, match=r"has no recogniser \(it has 1k3d68.onnx, det_tiny.onnx\)"):
        face_models.build_face_models(tmp_path, f"insightface:{pack}")


def test_a_recogniser_is_no_detector(pack):
    with pytest.raises(EngineError, match="has 1 outputs: need an SCRFD detector with landmarks"):
        Scrfd(pack / "w600k_tiny.onnx", threads=1)


def test_a_damaged_file_of_a_pack_is_named(pack, tmp_path):
    (pack / "w600k_tiny.onnx").write_bytes(b"half a download")
    with pytest.raises(EngineError, match=r"w600k_tiny\.onnx is not a readable ONNX file"):
        face_models.build_face_models(tmp_path / "repository", f"insightface:{pack}")


@pytest.mark.parametrize(("file", "kind"), [("w600k_tiny.onnx", "recogniser"), ("det_tiny.onnx", "detector")])
def test_of_two_models_of_a_kind_none_is_taken_without_a_word(tmp_path, pack, file, kind):
    shutil.copy(pack / file, pack / "another.onnx")
    with pytest.raises(EngineError, match=rf"buffalo_tiny has 2 {kind}s \(another.onnx, {file}\).*leave that one"):
        face_models.build_face_models(tmp_path / "repository", f"insightface:{pack}")
