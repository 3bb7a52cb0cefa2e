from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from id3pm.evaluation.faces import face_square
from id3pm.evaluation.figures.grid import LINE, NARROWEST, Tile, below, beside, grid, mosaic


def flat(value: int, size: int = 8) -> np.ndarray:
    return np.full((size, size, 3), value, np.uint8)


def test_tiles_stand_in_rows_and_columns_with_gaps_for_none() -> None:
    sheet = np.asarray(grid([[Tile(flat(10)), None, Tile(flat(20))], [Tile(flat(30))]], size=16))
    found = {value: np.argwhere((sheet == value).all(-1)) for value in (10, 20, 30)}
    assert all(len(places) == 16 * 16 for places in found.values())
    assert found[20][0][1] - found[10][0][1] == 2 * (found[30][0][0] - found[10][0][0])  # two columns against one row
    assert (found[30][0][1], found[20][0][0]) == (found[10][0][1], found[10][0][0])


def test_labels_titles_and_captions_take_room_and_leave_ink() -> None:
    bare = grid([[Tile(flat(255))]], size=64)
    dressed = grid([[Tile(flat(255), "0.61")]], title="Guidance", columns=["2"], labels=["one\ntwo"], size=64)
    assert dressed.width > bare.width and dressed.height > bare.height
    assert np.asarray(bare).min() == 255 and np.asarray(dressed).min() < 128


def test_a_long_title_is_wrapped_to_the_sheet() -> None:
    short, long = (grid([[Tile(flat(255))] * 8], title="Guidance\n" + "word " * count) for count in (1, 100))
    assert short.width == long.width > NARROWEST and long.height > short.height + 60


def test_both_ends_of_a_row_are_named_beside_it() -> None:
    bare, dressed = (
        np.asarray(grid([[Tile(flat(255))] * 2], ends=ends, size=64)).min(axis=(0, 2)) < 128
        for ends in ((), [("dark", "bright")])
    )
    inked = np.flatnonzero(dressed)
    assert not bare.any() and inked.min() < 20 and inked.max() > len(dressed) - 20


def test_an_empty_box_marks_a_place_without_a_picture() -> None:
    box = np.asarray(grid([[Tile(None, "vector 0.93")]], size=64))
    assert (box == 242).all(axis=-1).sum() == pytest.approx(64 * 64, abs=8)  # smooth letters have greys as well


def test_small_pictures_are_enlarged_without_blocks() -> None:
    edge = np.concatenate([flat(0)[:, :4], flat(255)[:, :4]], axis=1)
    sheet = np.asarray(grid([[Tile(edge)]], size=64))[..., 0]
    assert len(np.unique(sheet[40])) > 5, "steps between black and white"


def test_sheets_stand_beside_and_below_each_other() -> None:
    small, large = Image.new("RGB", (10, 20), "red"), Image.new("RGB", (30, 5), "blue")
    row, column = beside(small, large), below(small, large)
    assert row.size == (40, 20) and row.getpixel((39, 4)) == (0, 0, 255) and row.getpixel((39, 5)) == (255, 255, 255)
    assert column.size == (30, 25) and column.getpixel((0, 19)) == (255, 0, 0) and column.getpixel((29, 24))[2] == 255


def test_every_line_of_a_title_and_of_a_caption_has_room() -> None:
    one = grid([[Tile(flat(9), "asked -30")]], title="Yaw", size=16)
    three = grid([[Tile(flat(9), "asked -30\nmeasured 5\nsimilarity 0.58")]], title="Yaw\nof one person", size=16)
    assert three.height >= one.height + 3 * LINE
    ink = (np.asarray(three) < 140).any(axis=(1, 2))
    below = ink[np.argwhere((np.asarray(three) == 9).all(-1))[-1][0] + 1 :]
    assert sum(np.diff(np.r_[False, below].astype(int)) == 1) >= 3, "three lines with white between"


@pytest.mark.parametrize(("count", "across"), [(1, 1), (2, 2), (4, 2), (5, 3)])
def test_a_mosaic_has_all_images_in_a_square(count: int, across: int) -> None:
    images = np.stack([flat(10 + n) for n in range(count)])
    picture = mosaic(images)
    assert picture.shape == (across * 8 + (across - 1) * 2,) * 2 + (3,)
    for n in range(count):
        y, x = n // across * 10, n % across * 10
        assert (picture[y : y + 8, x : x + 8] == 10 + n).all()
    assert (picture == 255).all(-1).sum() == picture.shape[0] ** 2 - count * 64


def test_the_square_frames_the_face_and_is_black_outside_the_picture() -> None:
    image = flat(200, 100)[:80]  # 80 high, 100 wide
    square = face_square(image, np.array([0, 0, 40, 40], np.float32), 1.5, "constant")
    assert square.shape == (60, 60, 3)
    assert (square[:10] == 0).all() and (square[:, :10] == 0).all() and (square[10:, 10:] == 200).all()


def test_a_picture_that_the_face_fills_stays_whole() -> None:
    image = flat(200, 64)
    assert face_square(image, np.array([10, 5, 44, 55], np.float32), 1.5, "constant") is image
