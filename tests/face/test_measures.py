"""Promises of id3pm.face.measures, on heads that are turned by known angles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from id3pm.attributes import fields_of
from id3pm.face.measures import RANGES, REFERENCE, RIGID, fit_head, measure


def turned(roll=0.0, yaw=0.0, pitch=0.0, size=20.0, change=None):
    """The landmarks of a head, turned as the documentation of the attributes says; `change` moves some first."""
    points = np.zeros((468, 3))
    points[RIGID] = REFERENCE
    points[[13, 14]] = (0.0, 0.7, -0.2)  # closed lips
    points[61], points[291] = (-0.3, 0.7, -0.1), (0.3, 0.7, -0.1)
    for corner, lids in ((33, (159, 145)), (263, (386, 374))):
        points[list(lids)] = points[corner]
    points[[63, 105, 66, 293, 334, 296]] = (0.0, -0.25, 0.0)
    for index, move in (change or {}).items():
        points[index] += move
    r, y, p = np.radians([roll, yaw, pitch])
    # x right, y down, z away: clockwise takes x to y; the right is where the nose (negative z) goes; so is up (-y).
    clockwise = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    right = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]])
    up = np.array([[1, 0, 0], [0, np.cos(p), np.sin(p)], [0, -np.sin(p), np.cos(p)]])
    return size * points @ (clockwise @ right @ up).T + (100.0, 50.0, 7.0)


def values(**how):
    return {name: float(value[0]) for name, value in measure(turned(**how)[None]).items()}


def test_the_turns_of_these_tests_go_the_way_the_documentation_says():
    tip, chin = 1, 2
    straight = turned()
    assert turned(yaw=20)[tip, 0] > straight[tip, 0]  # to the picture's right
    assert turned(pitch=20)[tip, 1] < straight[tip, 1]  # up
    assert turned(roll=20)[chin, 0] < turned(roll=20)[10, 0]  # clockwise: the forehead goes right


@settings(max_examples=40, deadline=None)
@given(st.floats(-40, 40), st.floats(-60, 60), st.floats(-40, 40), st.floats(5, 300))
def test_pose_is_that_of_the_turned_head_at_any_size_and_place(roll, yaw, pitch, size):
    found = values(roll=roll, yaw=yaw, pitch=pitch, size=size)
    assert [found[name] for name in ("roll", "yaw", "pitch")] == pytest.approx([roll, yaw, pitch], abs=1e-3)


def test_a_mirrored_head_turns_and_tilts_the_other_way():
    points = turned(roll=7, yaw=-25, pitch=12)
    mirrored = points * (-1, 1, 1)
    for side in ((33, 263), (133, 362), (98, 327), (127, 356), (234, 454), (54, 284), (103, 332), (70, 300)):
        mirrored[list(side)] = mirrored[list(side[::-1])]
    found = measure(mirrored[None])
    assert [found[name][0] for name in ("roll", "yaw", "pitch")] == pytest.approx([-7, 25, 12], abs=1e-6)


@pytest.mark.parametrize(
    ("name", "change", "step"),
    [
        ("mouth_open", {14: (0, 0.3, 0)}, 0.3),
        ("smile", {61: (-0.1, 0, 0), 291: (0.1, 0, 0)}, 0.2),
        ("smile", {61: (0, -0.05, 0), 291: (0, -0.05, 0)}, 0.15),
        ("brows", {index: (0, -0.1, 0) for index in (63, 105, 66, 293, 334, 296)}, 0.1),
        ("eyes_open", {145: (0, 0.1, 0), 374: (0, 0.1, 0)}, 0.1 / np.hypot(0.306, np.hypot(0.024, 0.058))),
    ],
)
@pytest.mark.parametrize("pose", [{}, {"yaw": 30, "pitch": -15, "roll": 10, "size": 55}])
def test_each_expression_is_moved_by_its_own_landmarks_whatever_the_pose(name, change, step, pose):
    before, after = values(**pose), values(change=change, **pose)
    moved = {key: after[key] - before[key] for key in RANGES}
    expected = {key: step / np.ptp(RANGES[key]) if key == name else 0.0 for key in RANGES}
    assert moved == pytest.approx(expected, abs=1e-6)


def test_the_measures_are_the_fields_of_the_attribute_set():
    assert set(values()) == {field.name for field in fields_of("landmarks")}


def test_a_reflection_is_never_fitted():
    rotations, scales, _ = fit_head(REFERENCE[None] * (-1, 1, 1))
    assert np.linalg.det(rotations)[0] == pytest.approx(1.0)
    assert scales[0] < 1.0
