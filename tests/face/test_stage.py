"""Promises of id3pm.face.stage."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from id3pm.errors import FaceTooSmallError, ImageError, InvalidInputError, NoFaceError, SeveralFacesError
from id3pm.face.stage import FaceResult
from id3pm.formats.images import encode_png
from id3pm.formats.photo_decoding import decode_photo


def resized(image, side):
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA if side < len(image) else cv2.INTER_CUBIC)


def embed(stage, image):
    (result,) = stage.embed_images(np.ascontiguousarray(image)[None])
    assert isinstance(result, FaceResult), result
    return result


@pytest.fixture(scope="module")
def reference(stage, portrait):
    return embed(stage, portrait)


def test_a_photo_gives_vector_detection_and_count(stage, portrait, reference):
    result = stage.embed(encode_png(portrait), "only")
    assert result.embedding.shape == (stage.identity_dim,) == (128,)
    assert np.linalg.norm(result.embedding) == pytest.approx(1.0, abs=1e-6)
    assert result.detection.shape == (15,)
    assert result.faces == 1
    np.testing.assert_array_equal(result.embedding, reference.embedding)
    assert stage.id_vector_model == "sface"


def test_signs_of_life_come_between_decoding_detection_and_encoding(stage, portrait):
    decoding, all_of_it = [], []
    decode_photo(encode_png(portrait), alive=lambda: decoding.append(1))
    stage.embed(encode_png(portrait), alive=lambda: all_of_it.append(1))
    assert len(all_of_it) == len(decoding) + 2
    all_of_it.clear()
    with pytest.raises(NoFaceError):
        stage.embed(encode_png(np.zeros_like(portrait)), alive=lambda: all_of_it.append(1))
    assert len(all_of_it) > 3, "one for each attempt"


def test_detections_are_in_pixels_of_the_photo(stage, portrait, reference):
    # Landmarks move by some pixels from one resolution to another; a wrong scale moves them by a hundred.
    large = embed(stage, resized(portrait, 1536))
    np.testing.assert_allclose(large.detection[:14] / 3, reference.detection[:14], atol=8)
    small = embed(stage, resized(portrait, 200))
    np.testing.assert_allclose(small.detection[:14] * 512 / 200, reference.detection[:14], atol=8)


@pytest.mark.parametrize("side", [320, 768, 1536])
def test_the_vector_hardly_depends_on_the_photos_resolution(stage, portrait, reference, side):
    assert embed(stage, resized(portrait, side)).embedding @ reference.embedding > 0.9


def test_a_generated_face_has_the_same_vector_at_64_and_256_pixels(stage, face_crop):
    small = resized(face_crop, 64)
    assert embed(stage, small).embedding @ embed(stage, resized(small, 256)).embedding > 0.95


@pytest.mark.parametrize("shift", [(0, 0), (5, 0), (0, -5), (-4, 4)])
@pytest.mark.parametrize("brightness", [0.6, 1.0, 1.3])
def test_faces_in_64_pixel_crops_are_found_and_recognised(stage, portrait, reference, shift, brightness):
    x, y = 143 + shift[0], 40 + shift[1]
    crop = resized(portrait[y : y + 160, x : x + 160], 64)
    crop = np.clip(crop * brightness, 0, 255).astype(np.uint8)
    assert embed(stage, crop).embedding @ reference.embedding > 0.5


@pytest.mark.parametrize("side", [64, 256, 700])
def test_a_face_that_fills_the_frame_is_found(stage, portrait, side):
    assert embed(stage, resized(portrait[75:178, 180:268], side)).faces == 1


def test_exif_orientation_is_applied_before_detection(stage, portrait, reference):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(np.rot90(portrait, 1))).save(file, "PNG", exif=exif)
    np.testing.assert_array_equal(stage.embed(file.getvalue()).embedding, reference.embedding)


def test_of_several_faces_the_largest_is_taken(stage, two_faces, reference):
    result = embed(stage, two_faces)
    assert result.faces == 2
    assert result.embedding @ reference.embedding > 0.9
    assert result.detection[0] < 512


def test_several_faces_are_an_error_if_one_is_asked_for(stage, two_faces):
    with pytest.raises(SeveralFacesError, match="2 faces were found and face='only' allows one"):
        stage.embed(encode_png(two_faces), "only")


def test_no_face_is_an_error_that_says_what_was_tried(stage):
    texture = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    with pytest.raises(NoFaceError, match="640x480 photo; tried with its longer side at 640 px, 1280 px, 160 px with"):
        stage.embed(encode_png(texture))


def test_a_tiny_face_is_an_error_that_says_the_size(stage, portrait):
    scene = np.zeros((512, 512, 3), dtype=np.uint8)
    scene[200:300, 200:300] = resized(portrait, 100)  # its face is 18x22 px
    with pytest.raises(FaceTooSmallError, match=r"the face is \d\dx\d\d px: at least 24 px are needed"):
        stage.embed(encode_png(scene))


def test_one_bad_picture_does_not_stop_the_others(stage, face_crop):
    small = resized(face_crop, 64)
    batch = np.stack([np.zeros_like(small), small, np.full_like(small, 255), small[:, ::-1]])
    first, second, third, fourth = stage.embed_images(batch)
    assert isinstance(first, NoFaceError)
    assert isinstance(third, NoFaceError)
    np.testing.assert_array_equal(second.embedding, embed(stage, small).embedding)
    np.testing.assert_array_equal(fourth.embedding, embed(stage, small[:, ::-1]).embedding)


def test_batches_larger_than_one_network_call_come_back_in_order(stage, face_crop):
    small = resized(face_crop, 64)
    batch = np.stack([np.roll(small, row % 5, axis=1) for row in range(21)])
    results = stage.embed_images(batch)
    for row in (0, 15, 16, 20):
        np.testing.assert_array_equal(results[row].embedding, embed(stage, batch[row]).embedding)


def test_an_empty_batch_gives_nothing(stage):
    assert stage.embed_images(np.empty((0, 64, 64, 3), dtype=np.uint8)) == []


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (4000, 1), (2, 3)])
def test_pictures_of_any_shape_are_answered(stage, shape):
    (result,) = stage.embed_images(np.zeros((1, *shape, 3), dtype=np.uint8))
    assert isinstance(result, NoFaceError)


def test_bad_arguments_are_refused(stage, portrait):
    with pytest.raises(InvalidInputError, match="face='biggest': choose one of largest, only"):
        stage.embed(encode_png(portrait), "biggest")
    with pytest.raises(InvalidInputError, match=r"need uint8 \[N, H, W, 3\]"):
        stage.embed_images(portrait)
    with pytest.raises(ImageError, match="not a JPEG, PNG or WebP"):
        stage.embed(b"no picture")
