"""MTCNN finds what facenet-pytorch's finds: golden values in tests/golden/make_face_networks_golden.py."""

from pathlib import Path

import numpy as np
import pytest

from id3pm.face.detect import DETECTION_SIZE
from id3pm.face.mtcnn import Mtcnn, Picture
from id3pm.face.preprocessing import Preprocessing
from tests.face.scenes import scenes

GOLDEN = np.load(Path(__file__).parents[1] / "golden/face_networks.npz")
SCENES = scenes()


@pytest.fixture(scope="module")
def mtcnn(mtcnn_folder):
    return Mtcnn(*(mtcnn_folder / f"{name}.onnx" for name in ("pnet", "rnet", "onet")), threads=1)


def golden_faces(name):
    """float32 [K, 15], largest first, as the original gives them."""
    boxes, scores, points = (GOLDEN[f"mtcnn {name} {kind}"] for kind in ("boxes", "scores", "points"))
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2], points.reshape(-1, 10), scores[:, None]], axis=1)


@pytest.mark.parametrize("name", SCENES)
def test_faces_equal_the_originals(mtcnn, name):
    (faces,) = mtcnn.detect_batch(SCENES[name][None])
    assert faces.dtype == np.float32
    faces = faces[np.argsort(-faces[:, 2] * faces[:, 3])]
    np.testing.assert_allclose(faces, golden_faces(name), atol=1e-3)


@pytest.mark.parametrize("margin", [0, 14])
@pytest.mark.parametrize("name", ["portrait", "small"])
def test_crops_of_boxes_equal_the_originals(name, margin):
    preprocessing = Preprocessing(input_size=(160, 160), alignment="box", margin=margin)
    crop = preprocessing.crop(SCENES[name], golden_faces(name)[0])
    np.testing.assert_array_equal(crop, GOLDEN[f"mtcnn {name} crop margin {margin}"])


@pytest.mark.parametrize("name", ["portrait", "small"])
def test_crops_by_landmarks_equal_adafaces(name):
    face = np.concatenate([np.zeros(4), GOLDEN[f"adaface {name} points"][0].reshape(-1), [1.0]])
    crop = Preprocessing(fit="photo", antialias=False).crop(SCENES[name], face)
    assert np.abs(crop.astype(int) - GOLDEN[f"adaface {name} crop"]).max() <= 1


def test_landmarks_lie_near_those_of_adafaces_own_cascade(mtcnn):
    for name in ("portrait", "two", "small"):
        (faces,) = mtcnn.detect_batch(SCENES[name][None])
        theirs = GOLDEN[f"adaface {name} points"]
        assert len(faces) == len(theirs)
        for face in faces:
            distance = np.abs(face[4:14].reshape(5, 2) - theirs).max(axis=(1, 2)).min()
            assert distance < 1.5  # pixels; the deviation that manifest and documentation name


def test_a_batch_gives_what_its_pictures_give_alone(mtcnn):
    portrait = SCENES["portrait"]
    images = np.stack([portrait, np.zeros_like(portrait), portrait[:, ::-1]])
    together = mtcnn.detect_batch(images)
    assert [len(faces) for faces in together] == [1, 0, 1]
    np.testing.assert_array_equal(together[2], mtcnn.detect_batch(images[2:])[0])


@pytest.mark.parametrize("shape", [(1, 1), (11, 400), (20, 20), (300, 21)])
def test_pictures_without_room_for_a_face_have_none(mtcnn, shape):
    (faces,) = mtcnn.detect_batch(np.full((1, *shape, 3), 200, dtype=np.uint8))
    assert faces.shape == (0, DETECTION_SIZE)


@pytest.mark.parametrize("size", [(7, 9), (24, 24), (50, 61)])
def test_resizing_averages_what_a_pixel_covers(size):
    import torch

    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    part = torch.from_numpy(image[3:37, 5:46].transpose(2, 0, 1).astype(np.float32))
    expected = torch.nn.functional.interpolate(part[None], size, mode="area")[0].permute(1, 2, 0)
    np.testing.assert_allclose(Picture(image).resized((5, 3, 46, 37), size), expected, rtol=1e-5)
