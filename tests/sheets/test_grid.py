from __future__ import annotations

import numpy as np
import pytest

from id3pm.sheets.grid import LINE, Tile, grid, mosaic
from id3pm.sheets.studio import face_square


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


def test_every_line_of_a_title_and_of_a_caption_has_room() -> None:
    one = grid([[Tile(flat(9), "asked -30")]], title="Yaw", size=16)
    three = grid([[Tile(flat(9), "asked -30\nmeasured 5\nsimilarity 0.58")]], title="Yaw\nof one person", size=16)
    assert three.height == one.height + 3 * LINE
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
    square = face_square(image, np.array([0, 0, 40, 40], np.float32))
    assert square.shape == (60, 60, 3)
    assert (square[:10] == 0).all() and (square[:, :10] == 0).all() and (square[10:, 10:] == 200).all()


def test_a_picture_that_the_face_fills_stays_whole() -> None:
    image = flat(200, 64)
    assert face_square(image, np.array([10, 5, 44, 55], np.float32)) is image
