"""Promises of id3pm.face.align; scikit-image and OpenCV are the live oracles."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.transform import SimilarityTransform

from id3pm.face.align import ARCFACE_TEMPLATE, align_face, similarity_transform


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_transform_equals_scikit_images(seed, mirrored):
    rng = np.random.default_rng(seed)
    source = rng.normal(scale=40, size=(5, 2)) + rng.normal(scale=200, size=2)
    target = ARCFACE_TEMPLATE * ([-1, 1] if mirrored else [1, 1])
    expected = SimilarityTransform.from_estimate(source, target).params[:2]
    np.testing.assert_allclose(similarity_transform(source, target), expected, rtol=1e-6, atol=1e-6)


def test_transform_finds_a_known_similarity():
    angle, scale = 0.3, 1.7
    rotation = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    target = ARCFACE_TEMPLATE @ rotation.T + [5, -9]
    expected = np.column_stack([rotation, [5, -9]])
    np.testing.assert_allclose(similarity_transform(ARCFACE_TEMPLATE, target), expected, atol=1e-9)


@pytest.fixture(scope="module")
def recognizer(originals):
    return cv2.FaceRecognizerSF.create(str(originals[1]), "")


@pytest.fixture(scope="module")
def face(stage, portrait):
    return stage.detect(portrait[None])[0][0]


def test_crop_equals_opencvs(recognizer, portrait, face):
    ours = align_face(portrait, face[4:14].reshape(5, 2))
    expected = recognizer.alignCrop(np.ascontiguousarray(portrait[..., ::-1]), face)[..., ::-1]
    assert ours.shape == (112, 112, 3)
    # Both round; the transforms differ by float32 against float64.
    assert np.abs(ours.astype(int) - expected).max() <= 2
    assert (ours == expected).mean() > 0.99


def test_a_face_at_the_picture_edge_is_continued_in_black(recognizer, portrait, face):
    left, top = int(face[4]) - 5, int(face[5]) - 5  # cuts through the face beside the eye
    shifted = face.copy()
    shifted[[0, 4, 6, 8, 10, 12]] -= left
    shifted[[1, 5, 7, 9, 11, 13]] -= top
    cut = np.ascontiguousarray(portrait[top:, left:])
    ours = align_face(cut, shifted[4:14].reshape(5, 2))
    expected = recognizer.alignCrop(np.ascontiguousarray(cut[..., ::-1]), shifted)[..., ::-1]
    assert not ours[:20].any()
    assert np.abs(ours.astype(int) - expected).max() <= 2


def test_large_faces_are_averaged_not_sampled(portrait, face):
    landmarks = face[4:14].reshape(5, 2)
    reference = align_face(portrait, landmarks).astype(float)
    # Six times as large, with noise of one pixel's size, which averaging removes and sampling keeps.
    large = cv2.resize(portrait, None, fx=6, fy=6, interpolation=cv2.INTER_LINEAR)
    noise = np.random.default_rng(0).integers(-60, 61, large.shape, dtype=np.int16)
    noisy = np.clip(large + noise, 0, 255).astype(np.uint8)
    points = (landmarks + 0.5) * 6 - 0.5

    def error(antialias):
        return np.abs(align_face(noisy, points, antialias).astype(float) - reference).mean()

    assert error(antialias=True) < 5
    assert error(antialias=False) > 15


def test_pictures_wider_than_opencv_can_warp_are_aligned(portrait, face):
    wide = np.zeros((512, 40_000, 3), dtype=np.uint8)
    wide[:, 39_000:39_512] = portrait
    landmarks = face[4:14].reshape(5, 2)
    crop = align_face(wide, landmarks + [39_000, 0])
    assert np.abs(crop.astype(int) - align_face(portrait, landmarks)).max() <= 2
