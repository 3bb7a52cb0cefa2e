from __future__ import annotations

import numpy as np

from id3pm.sheets.grid import Tile, grid
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


def test_the_square_frames_the_face_and_is_black_outside_the_picture() -> None:
    image = flat(200, 100)[:80]  # 80 high, 100 wide
    square = face_square(image, np.array([0, 0, 40, 40], np.float32))
    assert square.shape == (60, 60, 3)
    assert (square[:10] == 0).all() and (square[:, :10] == 0).all() and (square[10:, 10:] == 200).all()


def test_a_picture_that_the_face_fills_stays_whole() -> None:
    image = flat(200, 64)
    assert face_square(image, np.array([10, 5, 44, 55], np.float32)) is image
