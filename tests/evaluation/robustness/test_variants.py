"""Every change does what its name says, where it says so, and the same each time."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from id3pm.evaluation.robustness import light, noise, occlusion, style, warp
from id3pm.evaluation.robustness.portrait import SIZE, Pixels, Portrait
from id3pm.evaluation.robustness.variants import VARIANTS, variants_of
from id3pm.face.stage import FaceStage
from tests.evaluation.robustness.made_up_model import flat_portrait

ALL = tuple(VARIANTS)


def at(image: Pixels, portrait: Portrait, u: float, v: float) -> np.ndarray:
    x, y = np.rint(portrait.pixels([(u, v)])[0]).astype(int)
    return image[y, x].astype(int)


def test_every_variant_is_a_picture_of_its_own_and_the_same_each_time(person: Portrait) -> None:
    before = person.image.copy()
    pictures = variants_of(person, ALL)
    assert [(p.family, p.label) for p in pictures] == [(f, label) for f in ALL for label in VARIANTS[f]]
    images = [p.image for p in pictures]
    assert all(image is not None and image.shape == (SIZE, SIZE, 3) and image.dtype == np.uint8 for image in images)
    for again, image in zip(variants_of(person, ALL), images, strict=True):
        np.testing.assert_array_equal(again.image, image)
    assert not any(np.array_equal(a, b) for a, b in itertools.combinations([before, *images], 2))
    np.testing.assert_array_equal(person.image, before)


def test_only_the_families_that_are_asked_for_are_made(person: Portrait) -> None:
    assert {picture.family for picture in variants_of(person, ["pose", "noise"])} == {"noise", "pose"}


EYES, NOSE, MOUTH, FOREHEAD = ((-0.5, 0), (0.5, 0)), ((0, 0.57),), ((0, 1.15),), ((0, -0.75),)
LEFT, RIGHT = ((-0.5, 0.9),), ((0.5, 0.9),)


@pytest.mark.parametrize(
    ("make", "hidden", "seen"),
    [
        (occlusion.sunglasses, EYES, (*NOSE, *MOUTH, *FOREHEAD)),
        (occlusion.mask, (*NOSE, *MOUTH), (*EYES, *FOREHEAD)),
        (occlusion.hat, FOREHEAD, (*EYES, *NOSE, *MOUTH)),
        (occlusion.headband, FOREHEAD, (*EYES, *NOSE, *MOUTH)),
        (occlusion.hand, LEFT, (*EYES, *NOSE, *RIGHT, *FOREHEAD)),
        (occlusion.half_face, (EYES[0], *LEFT), (EYES[1], *RIGHT)),
    ],
)
@pytest.mark.parametrize("tilt", [0, 25])
def test_occlusion_hides_what_it_should_and_nothing_else(make, hidden, seen, tilt: float) -> None:
    portrait = flat_portrait(250, tilt)
    image = make(portrait)
    assert all((at(image, portrait, *place) < 225).any() for place in hidden)
    assert all((at(image, portrait, *place) == 250).all() for place in seen)


def test_light_is_counted_in_stops_of_linear_light() -> None:
    portrait = flat_portrait(180)
    for stops in (-2, -1, 0.5):
        expected = 255 * ((180 / 255) ** 2.2 * 2.0**stops) ** (1 / 2.2)
        assert light.exposed(portrait, stops)[0, 0, 0] == round(expected)
    assert light.exposed(portrait, 3).min() == 255


@pytest.mark.parametrize("direction", [-1, 1])
def test_the_lamp_stands_on_its_side(direction: float) -> None:
    portrait = flat_portrait(128)
    image = light.side_light(portrait, direction)
    near, far = at(image, portrait, direction * 0.8, 0.5), at(image, portrait, -direction * 0.8, 0.5)
    assert near.min() > 3 * far.max()


def test_noise_has_the_strength_it_says() -> None:
    portrait = flat_portrait(128)
    assert noise.grain(portrait, 20).std() == pytest.approx(20, rel=0.02)
    dead = noise.dead_pixels(portrait, 0.1)
    assert np.mean((dead == 0).all(-1)) == pytest.approx(0.05, abs=0.005)
    assert np.mean((dead == 255).all(-1)) == pytest.approx(0.05, abs=0.005)


def test_lost_detail_is_counted_in_distances_between_the_eyes() -> None:
    portrait = flat_portrait(0)
    x, y = np.rint(portrait.pixels([(0, 0.5)])[0]).astype(int)
    portrait.image[y, x] = 255
    spread = noise.blur(portrait, 0.1)[..., 0] > 0.1
    assert noise.motion_blur(portrait, 0.5)[y, :, 0].astype(bool).sum() == 30  # 60 px from eye to eye
    assert 6 < np.ptp(np.argwhere(spread)[:, 0]) / 2 < 20


def nose_between_eyes(stage: FaceStage, image: Pixels) -> tuple[float, float]:
    """Nose tip in distances between the eyes, along the line of the eyes and down from it."""
    (faces,) = stage.detect(image[None])
    left, right, nose = faces[0, 4:10].reshape(3, 2)
    across = right - left
    offset = nose - (left + right) / 2
    down = np.array([-across[1], across[0]])
    return float(offset @ across / (across @ across)), float(offset @ down / (across @ across))


def test_turning_moves_the_nose_against_the_eyes_the_more_the_farther(stage: FaceStage, person: Portrait) -> None:
    places = [nose_between_eyes(stage, warp.turned(person, yaw=yaw))[0] for yaw in (-30, -15, 0, 15, 30)]
    assert all(np.diff(places) > 0.015) and places[-1] - places[0] > 0.25
    heights = [nose_between_eyes(stage, warp.turned(person, pitch=pitch))[1] for pitch in (-20, 0, 20)]
    assert all(np.diff(heights) > 0.015)


def test_turning_leaves_the_background_and_folds_nothing_over() -> None:
    portrait = flat_portrait(0, tilt=0)
    ramp = np.repeat(np.arange(SIZE, dtype=np.uint8)[None, :, None], SIZE, axis=0)  # grows from left to right
    portrait.image[:] = ramp
    for yaw in (-30, 30):
        image = warp.turned(portrait, yaw=yaw)[..., 0].astype(int)
        assert (np.diff(image, axis=1) >= -1).all()  # still grows: -1 is the rounding of cubic interpolation
        np.testing.assert_allclose(image[:, -2:], ramp[:, -2:, 0], atol=2)
        assert np.abs(image - ramp[..., 0]).max() > 15


def test_tilting_turns_clockwise_about_the_face() -> None:
    portrait = flat_portrait(0)
    eye = portrait.pixels([(0.5, 0)])[0]
    y, x = np.mgrid[:SIZE, :SIZE]
    portrait.image[:] = np.rint(250 * np.exp(-((x - eye[0]) ** 2 + (y - eye[1]) ** 2) / 18))[..., None]
    image = warp.tilted(portrait, 30)[..., 0]
    center = portrait.pixels([(0, 0.5)])[0]
    there = np.array([(image * x).sum(), (image * y).sum()]) / image.sum() - center
    cos, sin = np.cos(np.radians(30)), np.sin(np.radians(30))
    np.testing.assert_allclose(there, np.array([[cos, -sin], [sin, cos]]) @ (eye - center), atol=0.5)  # y goes down


@pytest.mark.parametrize(
    ("make", "place", "outwards", "down"),
    [
        (warp.smile, (0.41, 1.156), 1, -1),
        (warp.smile, (-0.41, 1.156), 1, -1),
        (warp.frown, (0.41, 1.156), -1, 1),
        (warp.frown, (-0.28, -0.3), -1, 1),
        (warp.raised_brows, (0.5, -0.32), 0, -1),
        (warp.open_mouth, (0.0, 1.9), 0, 1),
    ],
)
def test_expressions_move_what_they_should(make, place: tuple[float, float], outwards: int, down: int) -> None:
    portrait = flat_portrait(0)
    spot = np.exp(-0.5 * ((portrait.grid - place) ** 2).sum(-1) / 0.04**2)
    portrait.image[:] = np.rint(250 * spot)[..., None]
    image = make(portrait)[..., 1].astype(float)
    image[image < 60] = 0  # what is dark between open lips
    (u, v) = (portrait.grid * image[..., None]).sum((0, 1)) / image.sum()
    if outwards:
        assert (abs(u) - abs(place[0])) * outwards > 0.02
    assert (v - place[1]) * down > 0.05


def test_an_open_mouth_is_dark_inside_and_leaves_the_eyes_alone() -> None:
    portrait = flat_portrait(200)
    image = warp.open_mouth(portrait)
    assert at(image, portrait, 0, 1.35).max() < 80
    assert (at(image, portrait, 0, 0.9) == 200).all() and (at(image, portrait, 0.5, 0) == 200).all()


def test_styles_are_what_they_are_called(person: Portrait) -> None:
    np.testing.assert_array_equal(style.inverted(person).astype(int) + person.image, 255)
    assert np.ptp(style.greyscale(person), axis=-1).max() == 0
    assert set(np.unique(style.posterised(person, 4))) <= {0, 85, 170, 255}
    blocks = style.mosaic(person, 16).reshape(16, 16, 16, 16, 3)
    assert (blocks == blocks[:, :1, :, :1]).all()
    drawn = style.ink(person)[..., 0]
    assert np.mean((drawn < 40) | (drawn > 215)) > 0.75  # ink and paper, little between


def test_oil_keeps_edges_and_calms_surfaces() -> None:
    portrait = flat_portrait(60)
    portrait.image[:, 128:] = 200
    np.testing.assert_array_equal(style.oil(portrait), portrait.image)
    portrait.image[:] = noise.grain(flat_portrait(128), 20)
    assert style.oil(portrait).std() < 10
