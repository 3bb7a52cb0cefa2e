"""Promises of id3pm.face.encoders; OpenCV's own SFace is the live oracle."""

import cv2
import numpy as np
import pytest

from id3pm.errors import EngineError
from id3pm.face.encoders import OnnxEncoder, unit
from id3pm.face.preprocessing import Preprocessing


@pytest.fixture(scope="module")
def sface(face_folder):
    return OnnxEncoder(face_folder / "sface.onnx", Preprocessing(), threads=1)


@pytest.fixture(scope="module")
def crops(face_crop):
    crop = cv2.resize(face_crop, (112, 112), interpolation=cv2.INTER_AREA)
    noise = np.random.default_rng(0).integers(0, 256, crop.shape, dtype=np.uint8)
    return np.stack([crop, crop[:, ::-1], noise])


def test_vectors_equal_opencvs_up_to_the_norm(sface, originals, crops):
    recognizer = cv2.FaceRecognizerSF.create(str(originals[1]), "")
    expected = np.concatenate([recognizer.feature(np.ascontiguousarray(crop[..., ::-1])) for crop in crops])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(sface.encode_batch(crops), expected, atol=1e-5)


def test_vectors_have_length_one(sface, crops):
    vectors = sface.encode_batch(crops)
    assert vectors.shape == (3, sface.identity_dim) == (3, 128)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


def test_a_vector_does_not_depend_on_its_batch(sface, crops):
    together = sface.encode_batch(crops)
    for row, crop in enumerate(crops):
        np.testing.assert_array_equal(sface.encode_batch(crop[None])[0], together[row])


def test_a_vector_does_not_depend_on_the_number_of_threads(sface, face_folder, crops):
    two = OnnxEncoder(face_folder / "sface.onnx", Preprocessing(), threads=2)
    np.testing.assert_array_equal(two.encode_batch(crops), sface.encode_batch(crops))


def test_wrong_crops_are_refused(sface, crops):
    with pytest.raises(ValueError, match=r"need uint8 \[N, 112, 112, 3\]"):
        sface.encode_batch(crops[:, :100])
    with pytest.raises(ValueError, match="crops are float32"):
        sface.encode_batch(crops.astype(np.float32))


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_broken_model_is_an_error_not_a_vector(bad):
    with pytest.raises(EngineError, match="zero or not finite"):
        unit(np.array([[1.0, 2.0], [bad, bad]], dtype=np.float32))


def test_a_detector_is_no_encoder(face_folder):
    with pytest.raises(EngineError, match=r"an FR model gives \[N, D\]"):
        OnnxEncoder(face_folder / "yunet.onnx", Preprocessing(), threads=1)


def test_zero_threads_are_refused(face_folder):
    with pytest.raises(EngineError, match="threads=0"):
        OnnxEncoder(face_folder / "sface.onnx", Preprocessing(), threads=0)
