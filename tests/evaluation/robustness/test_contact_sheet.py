"""The PNG of one subject: nothing is lost, the width is used, and failures do not look like successes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from id3pm.evaluation.robustness.contact_sheet import COLOURS, COLUMNS, FRAME, TILE, _shelves, shown, write_sheet
from id3pm.evaluation.robustness.study import Block, Opinion, Subject
from id3pm.evaluation.robustness.summary import bands
from id3pm.evaluation.robustness.variants import MEAN, ORIGINAL, VARIANTS, Picture
from tests.evaluation.robustness.made_up_model import made_up_threshold

LIMIT = made_up_threshold("made up", 0.5)  # 60 degrees


def plain(value: int) -> np.ndarray:
    return np.full((256, 256, 3), value, np.uint8)


def block(*kept: float, drift: float = 30.0) -> Block:
    """An original, a picture for each further angle but the last, and the mean."""
    middle = [Picture("light", f"lamp {number}", plain(40 * number)) for number in range(1, len(kept) - 1)]
    pictures = (Picture(ORIGINAL, "original", plain(9)), *middle, Picture(MEAN, "mean ID vector", None))
    angles = np.array(kept)
    seen = np.where(np.isnan(angles), np.nan, drift)
    opinion = Opinion("made up", False, LIMIT, seen, angles, angles)
    images = tuple(None if np.isnan(angle) else plain(128)[:64, :64] for angle in kept)
    nothing = np.zeros((len(kept), 3))
    return Block("made up", Subject("person", pictures, True), images, (opinion,), nothing, nothing)


def pixels_of(file: Path, verdict: str) -> int:
    ink = tuple(bytes.fromhex(COLOURS[verdict][0][1:]))
    with Image.open(file) as sheet:
        return int((np.asarray(sheet) == ink).all(axis=-1).sum())


def test_every_picture_has_its_place_and_no_shelf_is_too_wide() -> None:
    pictures = [Picture(ORIGINAL, "", None), Picture(MEAN, "", None)]
    pictures += [Picture(family, label, None) for family, made in VARIANTS.items() for label in made]
    families = bands(pictures)
    shelves = _shelves(families)
    widths = [sum(len(rows) for _, rows in shelf) for shelf in shelves]
    assert max(widths) <= COLUMNS and sum(widths) == len(pictures)
    assert len(shelves) == -(-len(pictures) // COLUMNS), "no row more than the pictures fill"
    for family, rows in families.items():
        assert [row for shelf in shelves for name, part in shelf if name == family for row in part] == rows


def test_what_is_taken_for_another_person_is_framed_in_red(tmp_path: Path) -> None:
    frame = 4 * TILE * FRAME - 4 * FRAME**2
    for name, sheet in (("same", block(20, 30, 40)), ("other", block(20, 70, 40))):
        write_sheet(tmp_path / name, [sheet], 0)
    red = [pixels_of(tmp_path / name, "other") for name in ("same", "other")]
    green = [pixels_of(tmp_path / name, "same") for name in ("same", "other")]
    assert red[0] < frame <= red[1] - red[0] < 1.3 * frame
    assert frame <= green[0] - green[1] < 1.3 * frame


def test_a_picture_without_a_face_has_no_frame(tmp_path: Path) -> None:
    write_sheet(tmp_path / "all", [block(20, 30, 30, 40)], 0)
    write_sheet(tmp_path / "missed", [block(20, 30, np.nan, 40)], 0)
    assert pixels_of(tmp_path / "all", "same") - pixels_of(tmp_path / "missed", "same") >= 4 * (TILE - FRAME) * FRAME
    assert pixels_of(tmp_path / "all", "other") == pixels_of(tmp_path / "missed", "other")


def test_the_mean_is_shown_by_the_pictures_it_is_of() -> None:
    pictures = block(20, 30, 40, 50, 60).subject.pictures
    mosaic = shown(pictures, len(pictures) - 1)
    assert mosaic is not None
    assert set(np.unique(mosaic)) == {40, 80, 120, 255}  # not the original, whose grey is 9
    assert shown(pictures, 1) is pictures[1].image


@pytest.mark.parametrize("judges", [1, 2, 3])
def test_every_judge_has_a_line(tmp_path: Path, judges: int) -> None:
    one = block(20, 30, 40)
    opinions = tuple(
        dataclasses.replace(one.opinions[0], judge=f"judge {number}", independent=number > 0)
        for number in range(judges)
    )
    write_sheet(tmp_path / "one", [one], 0)
    write_sheet(tmp_path / "more", [dataclasses.replace(one, opinions=opinions)], 0)
    with Image.open(tmp_path / "one") as first, Image.open(tmp_path / "more") as second:
        assert second.height - first.height == 19 * (judges - 1)
