"""From a photograph to an ID vector as insightface documents it, on its recogniser's graph with made-up weights.

The formulas of the original (`SCRFD.detect`, `face_align.norm_crop`, `ArcFaceONNX.get_feat`) are written out here with
the libraries that it uses: OpenCV and onnxruntime. It reads BGR and swaps; here pictures are RGB throughout.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from made_up_pack import write_pack

from id3pm.export.face import build as face_models
from id3pm.export.face.export import export_network
from id3pm.export.face.networks.lresnet100 import LResNet100
from id3pm.face.manifest import read_manifest
from id3pm.face.stage import FaceResult, FaceStage
from tests.export.thin_networks import with_made_up_weights

TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
IR_50 = (3, 4, 14, 3)
"""Units of `w600k_r50`: insightface's IResNet-50 has the layers of the LResNet family, unit by unit."""
THIN = (1, 1, 1, 1)


def pack_with(folder: Path, units: tuple[int, ...]) -> tuple[Path, LResNet100]:
    """A pack with the made-up detector, and an IResNet as its recogniser."""
    pack = write_pack(folder / "buffalo_made_up")
    (pack / "w600k_tiny.onnx").unlink()
    network = with_made_up_weights("arcface-razzhigaev", lambda kind: LResNet100(units))
    export_network(network, pack / "w600k_r50.onnx", (112, 112), ("id_vector",))
    assert isinstance(network, LResNet100)
    return pack, network


def photograph(height: int, width: int, white: int) -> np.ndarray:
    """Something to be seen at every scale, too dark for the made-up detector, and a white square that it takes."""
    generator = np.random.default_rng(height)
    coarse, fine = generator.integers(0, 200, (12, 16, 3)), generator.integers(0, 40, (height, width, 3))
    image = cv2.resize(coarse.astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    image = np.clip(image.astype(int) + fine - 20, 0, 200).astype(np.uint8)
    top, left = height // 2 - white // 2, width // 2 - white // 2
    image[top : top + white, left : left + white] = 255
    return image


def insightface_landmarks(image: np.ndarray, detector: Path) -> np.ndarray:
    """Landmarks [5, 2] of the largest face, after `prepare(det_size=(640, 640))`."""
    session = onnxruntime.InferenceSession(detector, providers=["CPUExecutionProvider"])
    ratio = image.shape[0] / image.shape[1]
    width, height = (int(640 / ratio), 640) if ratio > 1 else (640, int(640 * ratio))
    scale = height / image.shape[0]
    scene = np.zeros((640, 640, 3), np.uint8)
    scene[:height, :width] = cv2.resize(image, (width, height))
    blob = cv2.dnn.blobFromImage(scene, 1 / 128, (640, 640), (127.5, 127.5, 127.5))
    outputs = session.run(None, {session.get_inputs()[0].name: blob})
    best: tuple[float, np.ndarray] = (0.0, np.empty(0))
    for level, stride in enumerate((8, 16, 32)):
        scores, boxes, points = (outputs[level + 3 * kind] for kind in range(3))
        for row in np.flatnonzero(scores[:, 0] >= 0.5):
            cell = row // 2  # two anchors
            corner = np.array([cell % (640 // stride), cell // (640 // stride)]) * stride
            area = float((boxes[row, 0] + boxes[row, 2]) * (boxes[row, 1] + boxes[row, 3])) * stride**2
            if area > best[0]:
                best = area, (corner + points[row].reshape(5, 2) * stride) / scale
    return best[1]


def insightface_vector(image: np.ndarray, landmarks: np.ndarray, network: torch.nn.Module) -> np.ndarray:
    a = np.zeros((10, 4))  # the similarity with least squared error, as skimage's SimilarityTransform estimates it
    a[0::2] = np.column_stack([landmarks[:, 0], -landmarks[:, 1], np.ones(5), np.zeros(5)])
    a[1::2] = np.column_stack([landmarks[:, 1], landmarks[:, 0], np.zeros(5), np.ones(5)])
    scale_cos, scale_sin, x, y = np.linalg.lstsq(a, TEMPLATE.ravel(), rcond=None)[0]
    matrix = np.array([[scale_cos, -scale_sin, x], [scale_sin, scale_cos, y]])
    crop = cv2.warpAffine(image, matrix, (112, 112), borderValue=0.0)
    blob = cv2.dnn.blobFromImages([crop], 1 / 127.5, (112, 112), (127.5, 127.5, 127.5))
    with torch.no_grad():
        vector = network(torch.from_numpy(blob))[0].numpy()
    return vector / np.linalg.norm(vector)


def compare(tmp_path: Path, units: tuple[int, ...], image: np.ndarray) -> tuple[float, FaceResult]:
    """Largest difference of the unit vectors, and what the stage found; the landmarks agree."""
    pack, network = pack_with(tmp_path, units)
    folder, _ = face_models.build_face_models(tmp_path / "repository", f"insightface:{pack}")
    (result,) = FaceStage.load(folder, threads=1).embed_images(image[None])
    assert isinstance(result, FaceResult)
    landmarks = insightface_landmarks(image, pack / "det_tiny.onnx")
    np.testing.assert_allclose(result.detection[4:14].reshape(5, 2), landmarks, atol=1e-3)
    expected = insightface_vector(image, landmarks, network)
    return float(np.abs(result.embedding - expected).max()), result


@pytest.mark.parametrize(
    ("height", "width", "white"),
    [
        (128, 128, 24),  # enlarged fivefold
        (300, 407, 30),  # enlarged, and not to whole pixels
        (1003, 700, 90),  # reduced, upright; the face is sampled, not averaged
        (640, 640, 40),  # as it is
    ],
)
def test_photographs_of_any_size_become_the_originals_vectors(
    tmp_path: Path, height: int, width: int, white: int
) -> None:
    error, _ = compare(tmp_path, THIN, photograph(height, width, white))
    assert error < 5e-5  # of a vector of length 1; the exported graph alone may differ by 2e-5


def test_averaging_large_faces_would_be_seen(tmp_path: Path) -> None:
    image = photograph(2000, 1600, 400)
    error, result = compare(tmp_path, THIN, image)
    assert error < 5e-5  # of a vector of length 1; the exported graph alone may differ by 2e-5
    pack = tmp_path / "buffalo_made_up"
    folder, _ = face_models.build_face_models(tmp_path / "repository", f"insightface:{pack}")
    stage = FaceStage.load(folder, threads=1)
    averaged = type(stage.preprocessing)(mean=127.5, std=127.5).crop(image, result.detection)
    sampled = stage.preprocessing.crop(image, result.detection)
    assert np.abs(averaged.astype(int) - sampled).mean() > 3


def test_the_manifest_says_at_which_size_faces_are_looked_for_and_what_differs(tmp_path: Path) -> None:
    pack = write_pack(tmp_path / "buffalo_made_up")
    folder, _ = face_models.build_face_models(tmp_path / "repository", f"insightface:{pack}")
    manifest = read_manifest(folder)
    assert manifest.detection_size == 640 and not manifest.preprocessing.antialias
    assert [sentence.partition(":")[0] for sentence in manifest.deviations] == ["detection"] * 3


@pytest.mark.slow
def test_the_full_size_graph_gives_the_originals_vectors(tmp_path: Path) -> None:
    error, _ = compare(tmp_path, IR_50, photograph(300, 407, 30))
    assert error < 5e-5  # of a vector of length 1; the exported graph alone may differ by 2e-5
