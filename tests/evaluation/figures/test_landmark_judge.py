"""What is said of generated faces, and how it is summed up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from id3pm.evaluation.figures.landmark_judge import LandmarkJudge, fitted_slope, flat_measures, pearson_r
from id3pm.face.landmarks import FaceMesh
from id3pm.face.stage import FaceStage
from id3pm.formats.photo_decoding import decode_photo

PEOPLE = Path(__file__).parents[3] / "demo" / "people"


def test_both_witnesses_see_who_turns_which_way_and_neither_sees_a_face_in_black(face_folder: Path) -> None:
    faces = [decode_photo((PEOPLE / f"{name}.png").read_bytes()) for name in ("04", "06")]
    judge = LandmarkJudge(FaceStage.load(face_folder, threads=1), FaceMesh(threads=1))
    seen = judge.look(np.stack([*faces, np.zeros_like(faces[0])]))
    assert seen["yaw"][0] < -10 and seen["yaw"][1] > 10 and np.isnan(seen["yaw"][2])
    assert seen["dlib yaw"][0] < seen["dlib yaw"][1] and np.isnan(seen["dlib yaw"][2])
    assert {name.removeprefix("dlib ") for name in seen} == {
        "roll", "yaw", "pitch", "mouth_open", "smile", "eyes_open", "brows"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "rows", "move"),
    [
        ("yaw", slice(27, 36), (3, 0)),  # the nose to the picture's right
        ("pitch", slice(27, 36), (0, -3)),  # and up
        ("mouth_open", [57, 65, 66, 67], (0, 4)),
        ("smile", [48, 54], (0, -2)),
        ("eyes_open", [40, 41, 46, 47], (0, 2)),
        ("brows", slice(17, 27), (0, -3)),
    ],
)
def test_flat_measures_grow_with_what_they_are_named_after(name: str, rows: object, move: tuple[int, int]) -> None:
    points = np.zeros((68, 2))
    points[17:22], points[22:27] = (30, 30), (70, 30)
    points[27:36] = (50, 60)
    points[36:42] = [(25, 40), (28, 38), (32, 38), (35, 40), (32, 42), (28, 42)]
    points[42:48] = [(65, 40), (68, 38), (72, 38), (75, 40), (72, 42), (68, 42)]
    points[48:68] = (50, 80)
    points[48], points[54] = (38, 80), (62, 80)
    moved = points.copy()
    moved[rows] += move
    before, after = flat_measures(points[None]), flat_measures(moved[None])
    assert after[name][0] > before[name][0] + 0.01


def test_correlation_and_slope_leave_out_images_without_a_face() -> None:
    requested, measured = np.array([0.0, 1, 2, 3]), np.array([1.0, 1.5, np.nan, 2.5])
    assert pearson_r(requested, measured) == pytest.approx(1.0)
    assert fitted_slope(requested, measured) == pytest.approx(0.5)
    assert np.isnan(pearson_r(requested, np.full(4, np.nan))) and np.isnan(fitted_slope(requested, np.full(4, np.nan)))
