"""Promises of id3pm.face.landmarks; needs the landmark network, a file of PyPI's mediapipe."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from id3pm.errors import EngineError, EngineMissingError, InvalidInputError, MissingExtraError
from id3pm.face import landmarks
from id3pm.face.landmarks import POINTS, FaceMesh
from id3pm.face.measures import measure
from id3pm.formats.photo_decoding import decode_photo

PERSON = Path(__file__).parents[2] / "demo" / "people" / "04.png"
MIRROR = [1, 0, 2, 4, 3]


@pytest.fixture(scope="module")
def mesh():
    return FaceMesh(threads=1)


@pytest.fixture(scope="module")
def five(stage, portrait):
    """The detector's landmarks of the portrait, [5, 2]."""
    return stage.embed_images(portrait[None])[0].detection[4:14].reshape(5, 2)


def test_landmarks_lie_on_the_face_that_the_detector_saw(mesh, portrait, five):
    points, scores = mesh.find(portrait[None], five[None])
    assert points.shape == (1, POINTS, 3) and scores[0] > 0.9
    right_eye, left_eye, _, right_mouth, left_mouth = five
    distance = np.linalg.norm(left_eye - right_eye)
    for corners, place in (((33, 133), right_eye), ((263, 362), left_eye), ((61,), right_mouth), ((291,), left_mouth)):
        assert np.linalg.norm(points[0, list(corners), :2].mean(axis=0) - place) < 0.15 * distance


def test_a_smaller_picture_gives_the_same_landmarks(mesh, portrait, five):
    points, _ = mesh.find(portrait[None], five[None])
    small = cv2.resize(portrait, (256, 256), interpolation=cv2.INTER_AREA)
    halved, _ = mesh.find(small[None], ((five + 0.5) / 2 - 0.5)[None])
    assert np.abs((halved[0] + 0.5) * 2 - (points[0] + (0.5, 0.5, 1.0)))[:, :2].mean() < 0.02 * 64


def test_turning_the_picture_turns_the_roll_alone(mesh, portrait, five):
    turn = cv2.getRotationMatrix2D((224.0, 120.0), -15, 1.0)  # clockwise
    turned = cv2.warpAffine(portrait, turn, (512, 512), flags=cv2.INTER_CUBIC)
    before = measure(mesh.find(portrait[None], five[None])[0])
    after = measure(mesh.find(turned[None], (five @ turn[:, :2].T + turn[:, 2])[None])[0])
    assert after["roll"] - before["roll"] == pytest.approx(15.0, abs=1.0)
    for name in ("yaw", "pitch"):
        assert after[name] == pytest.approx(before[name], abs=1.5)
    for name in ("mouth_open", "smile", "eyes_open", "brows"):
        assert after[name] == pytest.approx(before[name], abs=0.08)


def test_the_mirrored_picture_turns_and_tilts_the_other_way(mesh, stage):
    face = decode_photo(PERSON.read_bytes())
    five = stage.embed_images(face[None])[0].detection[4:14].reshape(5, 2)
    turn = cv2.getRotationMatrix2D((31.5, 31.5), -8, 1.0)
    face, five = cv2.warpAffine(face, turn, (64, 64), flags=cv2.INTER_CUBIC), five @ turn[:, :2].T + turn[:, 2]
    plain = measure(mesh.find(face[None], five[None])[0])
    mirrored = five[MIRROR] * (-1, 1) + (63, 0)
    found = measure(mesh.find(np.ascontiguousarray(face[None, :, ::-1]), mirrored[None])[0])
    assert plain["yaw"][0] < -15.0 and plain["roll"][0] > 5.0  # else this test could not fail
    for name, sign in (("yaw", -1), ("roll", -1), ("pitch", 1)):
        assert found[name] == pytest.approx(sign * plain[name], abs=3.0)
    for name in ("mouth_open", "smile", "eyes_open", "brows"):
        assert found[name] == pytest.approx(plain[name], abs=0.2)


def test_a_batch_gives_what_its_pictures_give_alone(mesh, portrait, five):
    images = np.stack([portrait] * 34)  # more than one call of the network
    shifted = five[None] + np.linspace(-3, 3, 34)[:, None, None]
    together, scores = mesh.find(images, shifted)
    for row in (0, 33):
        alone, score = mesh.find(images[row : row + 1], shifted[row : row + 1])
        np.testing.assert_allclose(together[row], alone[0], atol=1e-2)
        assert scores[row] == pytest.approx(score[0], abs=1e-4)


def test_what_is_no_face_scores_low(mesh, five):
    noise = np.random.default_rng(0).integers(0, 256, (1, 512, 512, 3), dtype=np.uint8)
    assert mesh.find(noise, five[None])[1][0] < 0.5


def test_shapes_that_do_not_fit_are_refused(mesh, portrait):
    with pytest.raises(InvalidInputError, match=r"need \[N, 5, 2\]"):
        mesh.find(portrait[None], np.zeros((2, 5, 2)))


def test_a_missing_wheel_is_named(monkeypatch):
    monkeypatch.setattr(landmarks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="pip install --no-deps mediapipe"):
        FaceMesh()


def test_a_missing_or_damaged_file_is_named(tmp_path: Path):
    with pytest.raises(EngineMissingError, match="there is no mesh.tflite"):
        FaceMesh(tmp_path / "mesh.tflite")
    (tmp_path / "mesh.tflite").write_bytes(b"no network")
    with pytest.raises(EngineError, match="mesh.tflite cannot be loaded"):
        FaceMesh(tmp_path / "mesh.tflite")
