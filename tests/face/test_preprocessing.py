"""Promises of id3pm.face.preprocessing; OpenCV and Pillow are the live oracles."""

import cv2
import numpy as np
import pytest

from id3pm.errors import ConfigError
from id3pm.face.align import ARCFACE_TEMPLATE
from id3pm.face.preprocessing import TEMPLATES, Preprocessing

POINTS = tuple((float(x), float(y)) for x, y in ARCFACE_TEMPLATE * 2 + 3)


@pytest.fixture
def image():
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    return cv2.resize(noise, (400, 300), interpolation=cv2.INTER_CUBIC)


def detection(points, box=(0, 0, 1, 1)):
    return np.concatenate([box, np.ravel(points), [1.0]]).astype(np.float32)


@pytest.mark.parametrize("fit", ["crop", "photo"])
@pytest.mark.parametrize("alignment", [*TEMPLATES, POINTS])
def test_landmarks_come_to_lie_on_the_template(alignment, fit):
    size = TEMPLATES[alignment][0] if isinstance(alignment, str) else (230, 235)
    preprocessing = Preprocessing(input_size=size, alignment=alignment, fit=fit)
    image = np.zeros((600, 700, 3), dtype=np.uint8)
    points = preprocessing.template * 1.5 + (90, 60)  # an exact fit, whose landmarks fall on known places
    for x, y in np.rint(points).astype(int):
        cv2.circle(image, (int(x), int(y)), 4, (255, 255, 255), -1)
    crop = preprocessing.crop(image, detection(points))
    assert crop.shape == (*size, 3)
    for x, y in preprocessing.template:
        around = crop[int(y) - 4 : int(y) + 6, int(x) - 4 : int(x) + 6, 0].astype(float)
        rows, columns = np.mgrid[: around.shape[0], : around.shape[1]]
        centre = np.array([(columns * around).sum(), (rows * around).sum()]) / around.sum()
        np.testing.assert_allclose(centre + (int(x) - 4, int(y) - 4), (x, y), atol=0.6)


def test_where_the_fit_is_best_changes_the_scale(image):
    uneven = ARCFACE_TEMPLATE * 2 + np.array([[9, -6], [-8, 5], [4, 12], [-9, -7], [8, 3]])
    crops = [Preprocessing(fit=fit).crop(image, detection(uneven)).astype(float) for fit in ("crop", "photo")]
    assert np.abs(crops[0] - crops[1]).mean() > 3


def test_boxes_are_cut_off_at_the_edges_of_the_picture(image):
    preprocessing = Preprocessing(input_size=(40, 50), alignment="box", margin=10)
    box = (-20.0, 250.0, 60.0, 90.0)
    # 10 of 50 columns are margin, so 60 pixels of box make 75 of crop; of 40 rows they are 10, so 90 make 120.
    expected = cv2.resize(image[235:300, 0:47], (50, 40), interpolation=cv2.INTER_LINEAR)
    crop = preprocessing.crop(image, detection(np.zeros((5, 2)), box))
    assert crop.shape == (40, 50, 3)
    # Pillow averages where it shrinks, OpenCV samples: alike, not equal.
    assert np.abs(crop.astype(float) - expected).mean() < 8


@pytest.mark.parametrize("box", [(-90, -90, 20, 20), (500, 10, 30, 30), (399.5, 299.5, 0.1, 0.1)])
def test_a_box_outside_of_the_picture_still_gives_a_crop(image, box):
    crop = Preprocessing(input_size=(160, 160), alignment="box").crop(image, detection(np.zeros((5, 2)), box))
    assert crop.shape == (160, 160, 3)


def test_the_network_gets_its_channels_and_its_range():
    crops = np.zeros((2, 112, 112, 3), dtype=np.uint8)
    crops[...] = (10, 20, 30)
    given = Preprocessing(channel_order="BGR", mean=(30.0, 10.0, 5.0), std=(1.0, 2.0, 5.0)).network_input(crops)
    assert given.dtype == np.float32
    assert given.shape == (2, 3, 112, 112)
    assert given[1, :, 50, 50].tolist() == [0.0, 5.0, 1.0]
    assert Preprocessing().network_input(crops)[0, :, 0, 0].tolist() == [10.0, 20.0, 30.0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"input_size": (112,)}, r"input_size=\(112,\): need \[H, W\] in 8 .. 1024"),
        ({"input_size": (4, 4)}, "need"),
        ({"alignment": "arcface-224"}, "alignment='arcface-224': choose arcface-112, arcface-112x96, box or give five"),
        ({"alignment": "arcface-112x96"}, r"input_size=\[112, 112\]: arcface-112x96 has \[112, 96\]"),
        ({"alignment": ((1.0, 2.0),) * 4}, "need five finite"),
        ({"alignment": ((1.0, 2.0),) * 5}, "must differ by a pixel"),
        ({"alignment": (*POINTS[:4], (float("nan"), 1.0))}, "need five finite"),
        ({"margin": 3.0}, "margin=3.0: from 0 to below the size with box, 0 without"),
        ({"alignment": "box", "margin": 112.0}, "margin=112.0"),
        ({"mean": (1.0, 2.0)}, r"mean=\(1.0, 2.0\): need one number, or three"),
        ({"mean": float("inf")}, "mean=inf: must be finite"),
        ({"std": (1.0, 0.0, 1.0)}, "must be above 0"),
    ],
)
def test_what_no_crop_can_be_made_of_is_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        Preprocessing(**fields)
