"""Photographs in, embeddings and saved pictures out."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from id3pm.formats.images import GENERATED_XMP
from id3pm.formats.photo_decoding import decode_photo
from id3pm_client import (
    AccessDeniedError,
    Embedding,
    GeneratedImage,
    InternalServerError,
    InvalidRequestError,
    OverloadedError,
    ServerInfo,
)

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)


def sent_pixels(server: Any) -> np.ndarray:
    photo = server.calls[-1].inputs["photo"]
    assert photo.shape == (1, 1)
    return np.asarray(Image.open(io.BytesIO(photo[0, 0])))


def test_a_photo_may_be_a_path_bytes_a_picture_or_an_array(client: Any, server: Any, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(PIXELS).save(path)
    for photo in (path, str(path), path.read_bytes(), Image.open(path), PIXELS, PIXELS[:, ::-1][:, ::-1]):
        client.embed(photo)
        np.testing.assert_array_equal(sent_pixels(server), PIXELS)
    client.embed(path)
    assert server.calls[-1].inputs["photo"][0, 0] == path.read_bytes(), "files travel untouched"


def test_a_turned_picture_is_sent_upright(client: Any, server: Any) -> None:
    file = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # camera held upright: rotate by 270 degrees to view
    Image.fromarray(PIXELS).save(file, format="PNG", exif=exif)
    client.embed(Image.open(file))
    np.testing.assert_array_equal(sent_pixels(server), np.rot90(PIXELS, -1))


@pytest.mark.parametrize(
    ("photo", "message"),
    [
        (b"", "the photo is empty"),
        (PIXELS.astype(np.float32), "float32 array of shape"),
        (PIXELS[..., 0], r"shape \(6, 5\): pass uint8 \[H, W, 3\]"),
        (PIXELS[:0], r"shape \(0, 5, 3\)"),
        (np.zeros((2, 2, 4), np.uint8), r"shape \(2, 2, 4\)"),
        (None, "the photo is a NoneType: pass a path"),
        (7, "the photo is a int"),
    ],
)
def test_what_is_no_photo_is_refused_before_it_is_sent(client: Any, server: Any, photo: Any, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        client.embed(photo)
    assert server.calls == []


def test_a_missing_file_is_a_missing_file(client: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        client.embed(tmp_path / "none.jpg")


def test_embed_reads_vector_and_detection(client: Any, server: Any) -> None:
    face = client.embed(PIXELS, face="only")
    assert server.calls[0].model == "face_embedding"
    assert server.calls[0].inputs["face"].tolist() == [[b"only"]]
    assert isinstance(face, Embedding)
    assert face.vector.dtype == np.float32
    assert face.vector.tolist() == [0, 1, 2, 3]
    assert face.faces == 2
    assert face.turned == -90
    assert face.id_vector_model == "sface"
    assert face.box.tolist() == [0, 1, 2, 3]
    assert face.landmarks.tolist() == [[4, 5], [6, 7], [8, 9], [10, 11], [12, 13]]
    assert face.score == 14.0
    with pytest.raises(ValueError, match="read-only"):
        face.vector[0] = 1.0


def test_an_embedding_is_an_array_where_one_is_expected(client: Any) -> None:
    face = client.embed(PIXELS)
    assert client.generate(face, 1).receipt["first"] == 0.0
    assert len(client.generate([face, face], 1)) == 2
    assert np.asarray(face, dtype=np.float64).dtype == np.float64
    assert np.stack([face, face]).shape == (2, 4)


def test_face_must_be_text(client: Any) -> None:
    with pytest.raises(InvalidRequestError, match="face=1: must be a string"):
        client.embed(PIXELS, face=1)


def test_a_broken_embedding_answer_is_the_servers_fault(client: Any, server: Any) -> None:
    good = server.answer
    server.answer = lambda call: {**good(call), "detection": np.zeros((1, 4), np.float32)}
    with pytest.raises(InternalServerError, match=r"detection \(4,\)"):
        client.embed(PIXELS)


def test_one_seed_and_a_photo_are_one_request(client: Any, server: Any) -> None:
    image = client.generate_from_photo(PIXELS, 3, face="only", steps=5, attributes=[1.0])
    assert isinstance(image, GeneratedImage)
    (call,) = server.calls
    assert call.model == "id3pm_photo"
    assert set(call.inputs) == {"photo", "face", "seed", "steps", "attributes"}
    assert call.inputs["face"].tolist() == [[b"only"]]


def test_for_several_seeds_the_photo_is_analysed_once(client: Any, server: Any) -> None:
    images = client.generate_from_photo(PIXELS, [3, 4], steps=5, with_64=False)
    assert [image.seed for image in images] == [3, 4]
    assert [call.model for call in server.calls] == ["face_embedding", "id3pm", "id3pm"]
    assert all(call.inputs["steps"].tolist() == [[5]] for call in server.calls[1:])
    assert server.calls[1].inputs["embedding"].tolist() == [[0, 1, 2, 3]]


def test_a_photo_and_one_seed_take_one_attribute_vector(client: Any) -> None:
    with pytest.raises(InvalidRequestError, match="attributes has 2 rows for one image"):
        client.generate_from_photo(PIXELS, 3, attributes=[[1.0], [2.0]])


def test_a_saved_picture_carries_its_receipt(client: Any, tmp_path: Path) -> None:
    image = client.generate(np.ones(4), 9)
    image.save(tmp_path / "face.png")
    with Image.open(tmp_path / "face.png") as saved:
        assert json.loads(saved.text["id3pm"]) == {"seed": 9, "first": 1.0}
        assert saved.text["XML:com.adobe.xmp"] == GENERATED_XMP
        np.testing.assert_array_equal(np.asarray(saved), np.asarray(image.image))
    with pytest.raises(InvalidRequestError, match=r"face.jpg': must end in .png"):
        image.save(tmp_path / "face.jpg")


def test_describe_asks_both_stages_and_gives_their_options_by_the_names_under_which_they_are_sent(
    client: Any, server: Any
) -> None:
    def stage(size: int, **options: Any) -> dict[str, Any]:
        return {"bundle": "demo", "image_size": size, "defaults": options, "presets": {"fast": {**options, "steps": 8}}}

    server.descriptions = {
        "denoiser_64": stage(64, steps=250, consistency=0.0),
        "super_resolution": stage(256, steps=100, consistency=1.0, guidance_scale=1.0),
    }
    assert client.describe() == {
        "bundle": "demo",
        "image_sizes": {"image_64": 64, "image": 256},
        "defaults": {"steps": 250, "sr_steps": 100, "sr_consistency": 1.0},
        "presets": {"fast": {"steps": 8, "sr_steps": 8, "sr_consistency": 1.0}},
    }
    assert server.controls == [(name, "describe", "") for name in ("denoiser_64", "super_resolution")]


def test_a_description_of_an_older_server_is_given_as_it_is(client: Any, server: Any) -> None:
    assert client.describe() == {"bundle": "demo", "attributes": []}


def test_a_description_that_makes_no_sense_is_an_error(client: Any, server: Any) -> None:
    server.descriptions = dict.fromkeys(("denoiser_64", "super_resolution"), {"image_size": 64, "presets": {"a": 1}})
    with pytest.raises(InternalServerError, match="the server's description lacks"):
        client.describe()


def test_ping_asks_both_stages(client: Any, server: Any) -> None:
    assert client.ping() == {
        "denoiser_64": {"active": 1, "waiting": 2},
        "super_resolution": {"active": 1, "waiting": 2},
    }
    assert server.controls == [("denoiser_64", "ping", ""), ("super_resolution", "ping", "")]


def test_readiness_and_server_info(client: Any, server: Any) -> None:
    assert client.is_ready()
    info = client.server_info()
    assert isinstance(info, ServerInfo)
    assert (info.name, info.version, info.ready) == ("fake", "1", True)
    assert set(info.models) >= {"id3pm", "id3pm_photo", "face_embedding"}
    server.ready = OverloadedError("Server exiting")
    assert not client.is_ready()


def test_where_the_server_takes_photographs_alone_the_photograph_goes_with_every_seed(client: Any, server: Any) -> None:
    answer = server.answer

    def photographs_alone(call: Any) -> Any:
        if call.model == "id3pm":
            raise AccessDeniedError("callers of this service may not send ID vectors, which id3pm takes")
        return answer(call)

    server.answer = photographs_alone
    seen: list[int] = []
    images = client.generate_from_photo(PIXELS, [4, 5, 6], steps=2, on_image=lambda index, _: seen.append(index))
    assert [image.seed for image in images] == [4, 5, 6] and sorted(seen) == [0, 1, 2]
    assert [image.receipt["seed"] for image in images] == [4, 5, 6]
    asked = [call for call in server.calls if call.model == "id3pm_photo"]
    assert len(asked) == 3 and all(call.inputs["steps"].tolist() == [[2]] for call in asked)
    with pytest.raises(AccessDeniedError, match="may not send ID vectors"):
        client.generate(np.arange(4, dtype=np.float32), [1, 2])


RANDOM = np.random.default_rng(1)
RGBA = Image.fromarray(RANDOM.integers(0, 256, (6, 5, 4), dtype=np.uint8))
GREY_16 = RANDOM.integers(0, 65536, (6, 5), dtype=np.uint16)
TRANSPARENT_COLOUR = Image.fromarray(PIXELS)
TRANSPARENT_COLOUR.info["transparency"] = tuple(PIXELS[0, 0].tolist())
SAVED = {
    "1": Image.fromarray(PIXELS).convert("1"),
    "L": Image.fromarray(PIXELS).convert("L"),
    "LA": RGBA.convert("LA"),
    "P": Image.fromarray(PIXELS).quantize(16),
    "P, transparent": RGBA.quantize(16),
    "RGB": Image.fromarray(PIXELS),
    "RGB, transparent colour": TRANSPARENT_COLOUR,
    "RGBA": RGBA,
    "I;16": Image.fromarray(GREY_16),
}
"""Pictures of the modes that PNG files have."""


@pytest.mark.parametrize("mode", SAVED)
def test_a_file_and_its_pil_image_are_the_same_pixels(client: Any, server: Any, tmp_path: Path, mode: str) -> None:
    path = tmp_path / "photo.png"
    SAVED[mode].save(path)
    client.embed(path)
    of_path = decode_photo(server.calls[-1].inputs["photo"][0, 0])
    for picture in (SAVED[mode], Image.open(path)):
        client.embed(picture)
        np.testing.assert_array_equal(decode_photo(server.calls[-1].inputs["photo"][0, 0]), of_path)


def test_a_cmyk_jpeg_and_its_pil_image_are_the_same_pixels(client: Any, server: Any, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    Image.fromarray(PIXELS).convert("CMYK").save(path)
    for photo in (path, Image.open(path)):
        client.embed(photo)
    first, second = (decode_photo(call.inputs["photo"][0, 0]) for call in server.calls)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("picture", "same_as"),
    [
        (Image.fromarray(PIXELS).convert("RGBX"), Image.fromarray(PIXELS)),
        (Image.fromarray(PIXELS).convert("CMYK"), Image.fromarray(PIXELS).convert("CMYK").convert("RGB")),
        (Image.fromarray(PIXELS).convert("YCbCr"), Image.fromarray(PIXELS).convert("YCbCr").convert("RGB")),
        (Image.fromarray(PIXELS).convert("HSV"), Image.fromarray(PIXELS).convert("HSV").convert("RGB")),
        (Image.new("LAB", (5, 6), (200, 128, 128)), Image.new("LAB", (5, 6), (200, 128, 128)).convert("RGB")),
        (RGBA.convert("LA").convert("PA"), RGBA.convert("LA").convert("PA").convert("RGBA")),
        (RGBA.convert("RGBa"), RGBA.convert("RGBa").convert("RGBA")),
        (RGBA.convert("LA").convert("La"), RGBA.convert("LA").convert("La").convert("LA")),
        (Image.fromarray(GREY_16.astype(np.int32)), Image.fromarray(GREY_16)),
        (Image.frombytes("I;16B", (5, 6), GREY_16.astype(">u2").tobytes()), Image.fromarray(GREY_16)),
    ],
    ids=lambda image: image.mode,
)
def test_modes_that_no_png_file_has_are_what_pillow_converts_them_to(
    client: Any, server: Any, picture: Image.Image, same_as: Image.Image
) -> None:
    for photo in (picture, same_as):
        client.embed(photo)
    first, second = (decode_photo(call.inputs["photo"][0, 0]) for call in server.calls)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (Image.fromarray(PIXELS).convert("F"), "mode F, whose range of brightness is not defined"),
        (Image.fromarray(np.array([[0, 70000]], np.int32)), "mode I with values from 0 to 70000: grey goes from 0 to"),
        (Image.fromarray(np.array([[-1, 7]], np.int32)), "values from -1 to 7"),
    ],
)
def test_modes_without_a_defined_brightness_are_refused(
    client: Any, server: Any, picture: Image.Image, message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        client.embed(picture)
    assert server.calls == []
