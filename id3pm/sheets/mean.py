"""One ID vector for several photographs of a person, good and bad ones (paper, supplement 5.2, Fig. 11)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from id3pm.errors import InvalidInputError
from id3pm.latent.means import mean_vector
from id3pm.pipeline import Pipeline
from id3pm.sheets.commands import common_options, given
from id3pm.sheets.grid import Tile, grid
from id3pm.sheets.latent import Floats, cosines, listed, mean, number, show_option
from id3pm.sheets.output import Effect, save
from id3pm.sheets.studio import Person, Shots, Studio

Picture = NDArray[np.uint8]


def _noisy(image: Picture) -> Picture:
    noise = np.random.Generator(np.random.Philox(0)).normal(0.0, 14.0, image.shape)
    return np.asarray(np.clip(image + noise, 0, 255), np.uint8)


def _covered(top: float, bottom: float) -> Callable[[Picture], Picture]:
    """Darkness from one share of the height to another, as wide as a face that fills the square."""

    def alter(image: Picture) -> Picture:
        dark, size = image.copy(), len(image)
        dark[round(top * size) : round(bottom * size), round(0.18 * size) : round(0.82 * size)] = 15
        return dark

    return alter


def _through(change: Callable[[Image.Image], Image.Image]) -> Callable[[Picture], Picture]:
    return lambda image: np.asarray(change(Image.fromarray(image)).convert("RGB"))


ALTERED: Mapping[str, Callable[[Picture], Picture]] = MappingProxyType(
    {
        "blurred": _through(lambda image: image.filter(ImageFilter.GaussianBlur(image.width / 45))),
        "noisy": _noisy,
        "small": _through(lambda image: image.resize((24, 24), Image.Resampling.BOX).resize(image.size)),
        "turned": _through(lambda image: image.rotate(25, Image.Resampling.BICUBIC)),
        "hat": _covered(0.0, 0.30),
        "sunglasses": _covered(0.36, 0.50),
        "mask": _covered(0.66, 1.0),
    }
)
"""What happens to photographs: name -> uint8 [S, S, 3] -> the same shape."""


@click.command("mean")
@common_options
@show_option(2)
@click.option("--one-person", is_flag=True, help="The photographs are of one person; nothing is altered.")
def mean_command(
    repository: Path,
    photos: tuple[Path, ...],
    out: Path,
    seed: int,
    steps: int | None,
    super_resolution: bool,
    threads: int | None,
    show: int,
    one_person: bool,
) -> None:
    """Mean ID (Fig. 11): each person in difficult pictures, what every single one gives, and what their mean gives."""
    options = given(steps=steps)
    with Studio(Pipeline.load(repository, threads=threads), super_resolution) as studio:
        people = studio.people(photos)
        albums = [_photographs(people)] if one_person else [_alterations(studio, person) for person in people]
        looks = [_look(studio, album, seed, options) for album in albums]
    rows: list[list[Tile | None]] = []
    labels: list[str] = []
    for album, look in list(zip(albums, looks, strict=True))[:show]:
        rows += _rows(album, look)
        labels += [f"{album.name}\nphotographs", "generated\nfrom each,\nand last from\nthe mean"]
    against = "the others" if one_person else "the clean photograph"
    title = f"Mean ID: cosine similarity of each picture's ID vector, and of the generated face, to that of {against}"
    columns = ["" for _ in albums[0].pictures]
    sheet = grid(rows, title=title, labels=labels, columns=[*columns, "mean"])
    single, whole = (float(np.mean([mean(getattr(look, name)) for look in looks])) for name in ("single", "whole"))
    image, image_of_mean = (
        float(np.mean([mean(part) for part in parts]))
        for parts in ([look.images[:-1] for look in looks], [look.images[-1] for look in looks])
    )
    best = float(np.mean([look.whole >= look.single.max() for look in looks]))
    report = {
        "seed": seed,
        "options": options,
        "one_person": one_person,
        "people": [_numbers(album, look) for album, look in zip(albums, looks, strict=True)],
        "mean_is_best": best,
    }
    effect = Effect(
        control="mean ID",
        change=f"each of {len(columns)} photographs -> their mean, {len(albums)} people",
        kept=(
            f"generated faces {image:.2f} from single photographs -> {image_of_mean:.2f} from the mean, "
            f"{sum(len(look.images) for look in looks)} images"
        ),
        moved=(
            f"similarity of the ID vector to {against} {single:.2f} -> {whole:.2f}; nearer than the best single "
            f"one for {best:.0%} of the people"
        ),
    )
    click.echo(save(out, "mean", sheet, [effect], report))


@dataclasses.dataclass(frozen=True, eq=False)
class _Album:
    """Pictures of one person, uint8 [S, S, 3] by name; their ID vectors [N, D], NaN without a face; the true one."""

    name: str
    pictures: dict[str, Picture]
    vectors: NDArray[np.float32]
    truth: NDArray[np.float32] | None

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Which pictures show a face, [N]."""
        return np.asarray(np.isfinite(self.vectors).all(axis=1))


@dataclasses.dataclass(frozen=True, eq=False)
class _Look:
    """What the M usable pictures of an album give.

    Attributes:
        single: Similarity of each picture's vector to the truth, [M].
        whole: That of their mean.
        shots: Generated faces, one for each and last that of the mean.
        images: Similarity of the generated faces to the truth, [M + 1].
    """

    single: Floats
    whole: float
    shots: Shots
    images: Floats


def _look(studio: Studio, album: _Album, seed: int, options: dict[str, Any]) -> _Look:
    vectors = album.vectors[album.usable]
    together = mean_vector(vectors)
    shots = studio.shoot(np.concatenate([vectors, together[np.newaxis]]), seed, **options)
    single, whole = agreement(vectors, album.truth)
    images = cosines(shots.vectors, together if album.truth is None else album.truth)
    return _Look(single, whole, shots, images)


def _rows(album: _Album, look: _Look) -> list[list[Tile | None]]:
    """The pictures, and below them what is generated from each; last from the mean."""
    above: list[Tile | None] = []
    below: list[Tile | None] = []
    position = 0
    for (title, picture), usable in zip(album.pictures.items(), album.usable, strict=True):
        above.append(Tile(picture, f"{title} {look.single[position]:.2f}" if usable else f"{title}: no face"))
        below.append(Tile(look.shots.images[position], number(look.images[position])) if usable else None)
        position += int(usable)
    return [[*above, None], [*below, Tile(look.shots.images[-1], number(look.images[-1]))]]


def _numbers(album: _Album, look: _Look) -> dict[str, Any]:
    used = [name for name, usable in zip(album.pictures, album.usable, strict=True) if usable]
    return {
        "person": album.name,
        "pictures": used,
        "no_face": [name for name in album.pictures if name not in used],
        "vectors": listed(look.single),
        "mean_vector": look.whole,
        "images": listed(look.images[:-1]),
        "image_of_mean": listed(look.images[-1:])[0],
    }


def _alterations(studio: Studio, person: Person) -> _Album:
    pictures = {name: alter(person.image) for name, alter in ALTERED.items()}
    return _Album(person.name, pictures, studio.embed(np.stack(list(pictures.values()))), person.vector)


def _photographs(people: list[Person]) -> _Album:
    if len(people) < 3:
        raise InvalidInputError(f"{len(people)} photographs: --one-person needs at least three")
    return _Album("one person", {one.name: one.image for one in people}, np.stack([one.vector for one in people]), None)


def agreement(vectors: NDArray[np.float32], truth: NDArray[np.float32] | None) -> tuple[Floats, float]:
    """Similarity of each vector [M, D] to the truth, and of their mean.

    Without a truth: of each to the single others, on average; and of the mean of all others to the one left out.
    """
    if truth is not None:
        return cosines(vectors, truth), float(cosines(mean_vector(vectors), truth))
    pairs = cosines(vectors[:, np.newaxis], vectors)
    single = (pairs.sum(axis=1) - 1.0) / (len(vectors) - 1)
    left_out = [
        float(cosines(mean_vector(np.delete(vectors, row, axis=0)), vectors[row])) for row in range(len(vectors))
    ]
    return np.asarray(single), float(np.mean(left_out))
