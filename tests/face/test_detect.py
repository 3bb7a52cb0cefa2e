"""Promises of id3pm.face.detect; OpenCV's own YuNet and NMS are the live oracles."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from id3pm.face.detect import YuNet, non_maximum_suppression


@pytest.fixture(scope="module")
def yunet(face_folder):
    return YuNet(face_folder / "yunet.onnx", threads=1)


def opencv_faces(model, image, score_threshold=0.7):
    height, width = image.shape[:2]
    detector = cv2.FaceDetectorYN.create(str(model), "", (width, height), score_threshold, 0.3, 5000)
    _, faces = detector.detect(np.ascontiguousarray(image[..., ::-1]))
    return np.empty((0, 15), np.float32) if faces is None else faces


@pytest.mark.parametrize("size", [(512, 512), (300, 411), (160, 160), (97, 33), (64, 64)])
def test_faces_equal_opencvs(yunet, originals, portrait, size):
    image = cv2.resize(portrait, size)
    (ours,) = yunet.detect_batch(image[None])
    np.testing.assert_allclose(ours, opencv_faces(originals[0], image), rtol=1e-4, atol=2e-3)


def test_several_faces_equal_opencvs_best_first(yunet, originals, two_faces):
    (ours,) = yunet.detect_batch(two_faces[None])
    assert len(ours) == 2
    assert ours[0, 14] >= ours[1, 14]
    np.testing.assert_allclose(ours, opencv_faces(originals[0], two_faces), rtol=1e-4, atol=2e-3)


def test_weak_candidates_equal_opencvs(face_folder, originals, two_faces):
    # At a threshold of 0.01 many boxes overlap, and some lie half outside: suppression has work to do.
    lenient = YuNet(face_folder / "yunet.onnx", threads=1, score_threshold=0.01)
    (ours,) = lenient.detect_batch(two_faces[None])
    expected = opencv_faces(originals[0], two_faces, score_threshold=0.01)
    assert len(expected) > 2
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=2e-3)


def test_a_batch_gives_what_its_pictures_give_alone(yunet, portrait):
    images = np.stack([portrait, portrait[:, ::-1], np.zeros_like(portrait), np.roll(portrait, 31, axis=0)])
    together = yunet.detect_batch(images)
    assert [len(faces) for faces in together] == [1, 1, 0, 1]
    for image, faces in zip(images, together, strict=True):
        np.testing.assert_array_equal(yunet.detect_batch(image[None])[0], faces)


def test_landmarks_lie_where_the_documentation_says(yunet, portrait):
    x, y, width, height, *points, score = yunet.detect_batch(portrait[None])[0][0]
    right_eye, left_eye, nose, right_mouth, left_mouth = np.reshape(points, (5, 2))
    assert x < right_eye[0] < nose[0] < left_eye[0] < x + width
    assert y < right_eye[1] < nose[1] < right_mouth[1] < y + height
    assert right_mouth[0] < left_mouth[0]
    assert 0.7 <= score <= 1.0


# Thresholds are no ratio of small whole numbers, and boxes are not empty: on ties OpenCV goes by its rounding errors.
BOXES = st.lists(st.tuples(*[st.integers(-20, 60)] * 2, *[st.integers(1, 60)] * 2), max_size=12)


@settings(max_examples=150, deadline=None)
@given(BOXES, st.sampled_from([0.1003, 0.3003, 0.5503, 0.9003]))
def test_suppression_equals_opencvs(boxes, threshold):
    scores = [1.0 - 0.01 * rank for rank in range(len(boxes))]
    expected = np.reshape(cv2.dnn.NMSBoxes(boxes, scores, 0.0, threshold), -1) if boxes else []
    ours = non_maximum_suppression(np.array(boxes, dtype=np.float32).reshape(-1, 4), threshold)
    np.testing.assert_array_equal(ours, expected)
