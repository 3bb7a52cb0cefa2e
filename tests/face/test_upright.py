"""Photographs on their side or head and tilted faces: the person's own ID vector, or a refusal."""

from __future__ import annotations

import numpy as np
import pytest

from face_turns import tilted
from id3pm.errors import NoFaceError
from id3pm.face.detect import YuNet
from id3pm.face.scrfd import Scrfd
from id3pm.face.stage import FaceResult
from id3pm.face.upright import Peak, crop_back, one_way_up, quarter_back, turned_crop
from id3pm.formats.images import encode_png
from id3pm.formats.photo_decoding import decode_photo
from id3pm.samples import PEOPLE, PHOTOGRAPH

PORTRAITS = [*sorted(PEOPLE.glob("*.png")), PHOTOGRAPH]
RULE = YuNet.upright_rule


@pytest.mark.parametrize("file", PORTRAITS, ids=lambda file: file.name)
def test_an_upright_portrait_has_the_vector_that_it_always_had(stage, file):
    image = decode_photo(file.read_bytes())
    result = stage.embed(file.read_bytes())
    (plain,) = stage.embed_images(image[None])
    assert result.turned == 0
    np.testing.assert_array_equal(result.embedding, plain.embedding)
    np.testing.assert_array_equal(result.detection, plain.detection)


@pytest.mark.parametrize("quarter", [90, 180, -90])
@pytest.mark.parametrize("file", [PORTRAITS[0], PORTRAITS[4], PORTRAITS[-1]], ids=lambda file: file.name)
def test_a_portrait_on_its_side_or_head_has_the_vector_of_the_upright_one(stage, file, quarter):
    image = decode_photo(file.read_bytes())
    (upright,) = stage.embed_images(image[None])
    result = stage.embed(encode_png(tilted(image, quarter)))
    assert result.turned == (180 if quarter == 180 else -quarter)
    np.testing.assert_array_equal(result.embedding, upright.embedding)
    np.testing.assert_allclose(result.detection, _as_stored(upright.detection, image.shape, quarter), atol=1e-3)


@pytest.mark.parametrize("degrees", [-135, -45, 20, 120])
@pytest.mark.parametrize("file", [PORTRAITS[4], PORTRAITS[-1]], ids=lambda file: file.name)
def test_a_tilted_face_is_the_same_person(stage, file, degrees):
    image = decode_photo(file.read_bytes())
    (upright,) = stage.embed_images(image[None])
    shown = tilted(image, degrees)
    result = stage.embed(encode_png(shown))
    assert result.embedding @ upright.embedding > 0.6
    assert abs((result.turned + degrees + 180) % 360 - 180) <= 25
    x, y, width, height = result.detection[:4]
    points = result.detection[4:14].reshape(5, 2)
    assert (points > (x, y)).all() and (points < (x + width, y + height)).all()


def test_what_cannot_be_told_is_refused_with_advice(stage, portrait, monkeypatch):
    monkeypatch.setattr("id3pm.face.stage.is_upright", lambda *_: False)
    monkeypatch.setattr("id3pm.face.stage.find_peak", lambda *_: Peak(0.0, 0.5))
    with pytest.raises(NoFaceError, match="which way up it is could not be told: turn the photo"):
        stage.embed(encode_png(portrait))


def test_a_large_or_wide_picture_without_a_face_should_be_cropped(stage):
    for size in ((600, 2400), (200, 900)):
        with pytest.raises(NoFaceError, match="crop a large or wide one"):
            stage.embed(encode_png(np.zeros((*size, 3), np.uint8)))
    with pytest.raises(NoFaceError) as refusal:
        stage.embed(encode_png(np.zeros((300, 400, 3), np.uint8)))
    assert "crop" not in str(refusal.value)


def test_generated_pictures_are_taken_as_they_are(stage, portrait):
    (result,) = stage.embed_images(np.ascontiguousarray(portrait[::-1, ::-1])[None])
    assert not isinstance(result, FaceResult) or result.turned == 0


@pytest.mark.parametrize(
    ("peaks", "expected"),
    [
        ([(0, 0.93), (90, 0.85), (180, 0.89), (270, 0.8)], 0),
        ([(0, 0.89), (90, 0.85), (180, 0.93), (270, 0.8)], 180),
        ([(0, 0.80), (90, 0.0), (180, 0.75), (270, 0.0)], 0),
        ([(0, 0.80), (90, 0.0), (180, 0.79), (270, 0.0)], None),
        ([(0, 0.90), (90, 0.0), (180, 0.895), (270, 0.0)], None),
        ([(0, 0.70), (90, 0.0), (180, 0.0), (270, 0.0)], None),
        ([(0, 0.0), (90, 0.0), (180, 0.0), (270, 0.0)], None),
    ],
)
def test_the_best_turn_counts_where_it_is_clear(peaks, expected):
    found = one_way_up([(quarter, Peak(0.0, score)) for quarter, score in peaks], RULE)
    assert (None if found is None else found[0]) == expected


@pytest.mark.parametrize(
    ("scores", "expected"),
    [((0.8, 0.5, 0.72, 0.5), 0), ((0.7, 0.5, 0.81, 0.0), 180), ((0.8, 0.0, 0.79, 0.0), None), ((0.45, 0, 0, 0), None)],
)
def test_scrfd_compares_all_turns_and_needs_a_lead(scores, expected):
    found = one_way_up([(90 * row, Peak(0.0, score)) for row, score in enumerate(scores)], Scrfd.upright_rule)
    assert (None if found is None else found[0]) == expected
    assert Scrfd.upright_rule.sure > 1.0, "its scores are not known well enough for the quick look"


def test_a_tilted_face_seen_from_two_quarters_is_no_contradiction():
    peaks = [(0, Peak(50.0, 0.92)), (90, Peak(-40.0, 0.91)), (180, Peak(0.0, 0.0)), (270, Peak(0.0, 0.8))]
    assert one_way_up(peaks, RULE) == (90, Peak(-40.0, 0.91))


@pytest.mark.parametrize("turn", [0.0, 30.0, -100.0])
@pytest.mark.parametrize("scale", [0.5, 4.0])
def test_points_of_a_turned_crop_are_found_again_in_the_photo(turn, scale):
    size = int(200 * scale)
    image = np.zeros((size, size, 3), np.uint8)
    spot = (np.array([0.62, 0.41]) * size).astype(int)
    reach = max(size // 50, 1)
    image[spot[1] - reach : spot[1] + reach + 1, spot[0] - reach : spot[0] + reach + 1] = 255
    face = np.zeros(15, np.float32)
    face[:4] = 0.3 * size, 0.3 * size, 0.4 * size, 0.4 * size
    crop, matrix = turned_crop(image, face, turn, 160, 2.0)
    weights = crop[..., 0].astype(float)
    middle = np.array([(weights.sum(axis=0) @ np.arange(160)), (weights.sum(axis=1) @ np.arange(160))]) / weights.sum()
    seen = np.zeros(15, np.float32)
    seen[4:14] = np.tile(middle, 5)
    np.testing.assert_allclose(crop_back(seen, matrix)[4:6], spot, atol=0.6 * max(scale, 1.0))


def _as_stored(face, shape, quarter):
    """A detection in the upright picture, in pixels of the picture turned counter-clockwise by a quarter."""
    height, width = shape[:2]
    size = (width, height) if quarter % 180 else (height, width)
    return quarter_back(face, -quarter % 360, size)


def test_a_face_that_scores_alike_over_many_turns_is_the_one_in_the_middle_of_its_quarter():
    """Measured on a generated face of 256 px: its flanks scored highest in the neighbouring quarters."""
    peaks = [(0, Peak(5.6, 0.912)), (90, Peak(-60.0, 0.908)), (180, Peak(5.0, 0.879)), (270, Peak(57.0, 0.914))]
    assert one_way_up(peaks, RULE) == peaks[0]
    opposite = [*peaks[:2], (180, Peak(5.0, 0.907)), peaks[3]]
    assert one_way_up(opposite, RULE) is None, "standing on its head it would score as much"
