"""Pictures of a comparison of methods: sheets of faces, interpolations, and single images for a user study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from id3pm.evaluation.baselines.judging import TargetSet
from id3pm.evaluation.figures.grid import Tile, grid
from id3pm.evaluation.files import save_sheet
from id3pm.formats.images import encode_png

Images = Mapping[str, Sequence[NDArray[np.uint8]]]
"""By method, for each target uint8 [seeds, H, W, 3]."""
TITLES = {"Vec2Face (after the published description)": "Vec2Face"}
"""Short names for sheets, where the name of a report is too long."""


def plot_methods(file: Path, targets: TargetSet, images: Images, shown: int = 8, seeds: int = 4) -> None:
    """One row per target: its picture, then every method's images, seed by seed.

    Args:
        file: The picture.
        targets: The people.
        images: See `Images`.
        shown: Most targets.
        seeds: Most images of a method.
    """
    rows = [
        [("target", targets.images[row])]
        + [(name, image) for name, of_method in images.items() for image in of_method[row][:seeds]]
        for row in range(min(shown, len(targets.images)))
    ]
    _draw(file, rows)


def plot_interpolations(file: Path, targets: TargetSet, rows: Mapping[str, Sequence[NDArray[np.uint8]]]) -> None:
    """One row per method and pair: both people's pictures around the images between.

    Args:
        file: The picture.
        targets: The people: pair k is from person 2 k to person 2 k + 1.
        rows: By method, for each pair uint8 [T, H, W, 3].
    """
    lines = []
    for name, pairs in rows.items():
        for pair, images in enumerate(pairs):
            ends = targets.images[2 * pair], targets.images[2 * pair + 1]
            shares = np.linspace(0.0, 1.0, len(images))
            middle = [(f"t = {share:.2f}", image) for share, image in zip(shares, images, strict=True)]
            lines.append((name, [("first", ends[0]), *middle, ("second", ends[1])]))
    _draw(file, [line for _, line in lines], [TITLES.get(name, name) for name, _ in lines])


def _draw(file: Path, rows: Sequence[Sequence[tuple[str, NDArray[np.uint8]]]], names: Sequence[str] = ()) -> None:
    """Draws rows of images, which have the same titles, and the names of the rows to their left."""
    columns = [TITLES.get(title, title) for title, _ in rows[0]]
    save_sheet(file, grid([[Tile(image) for _, image in row] for row in rows], columns=columns, labels=names))


def save_images(folder: Path, targets: TargetSet, images: Images) -> None:
    """The first seed's pictures one by one: `targets/00.png`, `METHOD/00.png`, as a user study takes them."""
    everything = {"targets": list(targets.images)}
    everything |= {
        _folder_name(name): [of_target[0] for of_target in made[: len(targets.images)]] for name, made in images.items()
    }
    for name, pictures in everything.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, picture in enumerate(pictures):
            data = encode_png(picture, generated=name != "targets")
            (folder / name / f"{number:02d}.png").write_bytes(data)


def _folder_name(method: str) -> str:
    return TITLES.get(method, method).lower().replace(" ", "_")
