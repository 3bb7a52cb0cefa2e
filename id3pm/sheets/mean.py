"""One ID vector for several photographs of a person, good and bad ones (paper, supplement 5.2, Fig. 11)."""

from __future__ import annotations

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
from id3pm.sheets.studio import Person, Studio

Picture = NDArray[np.uint8]


def _noise(image: Picture) -> Picture:
    noise = np.random.Generator(np.random.Philox(0)).normal(0.0, 30.0, image.shape)
    return _clipped(image + noise)


def _tinted(image: Picture) -> Picture:
    return _clipped(image * np.array([1.0, 0.75, 0.45]))


def _clipped(values: Floats) -> Picture:
    return np.asarray(np.clip(values, 0, 255), np.uint8)


def _sunglasses(image: Picture) -> Picture:
    # 40 % of the way down, where the eyes of a face that fills the square lie.
    dark, size = image.copy(), len(image)
    dark[round(0.36 * size) : round(0.50 * size), round(0.18 * size) : round(0.82 * size)] = 15
    return dark


def _through(change: Callable[[Image.Image], Image.Image]) -> Callable[[Picture], Picture]:
    return lambda image: np.asarray(change(Image.fromarray(image)).convert("RGB"))


ALTERED: Mapping[str, Callable[[Picture], Picture]] = MappingProxyType(
    {
        "blurred": _through(lambda image: image.filter(ImageFilter.GaussianBlur(image.width / 40))),
        "noisy": _noise,
        "dark": lambda image: (image * 0.3).astype(np.uint8),
        "tinted": _tinted,
        "turned": _through(lambda image: image.rotate(20, Image.Resampling.BICUBIC)),
        "small": _through(lambda image: image.resize((20, 20), Image.Resampling.BOX).resize(image.size)),
        "sunglasses": _sunglasses,
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
        sets = [_photographs(people)] if one_person else [_alterations(studio, person) for person in people]
        rows: list[list[Tile | None]] = []
        labels: list[str] = []
        measured: list[dict[str, Any]] = []
        for number_of_set, (name, pictures, vectors, truth) in enumerate(sets):
            usable = np.isfinite(vectors).all(axis=1)
            together = mean_vector(vectors[usable])
            shots = studio.shoot(np.concatenate([vectors[usable], together[np.newaxis]]), seed, **options)
            # With the true vector known, all are compared with it; else each with the photographs it was not made from.
            single, whole = _agreement(vectors[usable], truth)
            reference = together if truth is None else truth
            images = cosines(shots.vectors, reference)
            measured.append(
                {
                    "person": name,
                    "pictures": list(pictures),
                    "faces_found": int(usable.sum()),
                    "vectors": listed(single),
                    "mean_vector": whole,
                    "images": listed(images[:-1]),
                    "image_of_mean": float(images[-1]),
                }
            )
            if number_of_set >= show:
                continue
            above: list[Tile | None] = []
            below: list[Tile | None] = []
            position = 0
            for (title, picture), found in zip(pictures.items(), usable, strict=True):
                above.append(Tile(picture, f"{title} {single[position]:.2f}" if found else f"{title}: no face"))
                below.append(Tile(shots.images[position], number(images[position])) if found else None)
                position += found
            rows += [above, [*below, Tile(shots.images[-1], f"{images[-1]:.2f}")]]
            labels += [f"{name}\nphotographs", "generated\nfrom each,\nand last from\nthe mean"]
    against = "the others" if one_person else "the clean photograph"
    title = f"Mean ID: cosine similarity of each picture's ID vector, and of the generated face, to that of {against}"
    columns = ["" for _ in range(len(sets[0][1]))]
    sheet = grid(rows, title=title, labels=labels, columns=[*columns, "mean"])
    single_mean = float(np.mean([np.mean(_known(entry["vectors"])) for entry in measured]))
    image_mean = float(np.mean([np.mean(_known(entry["images"])) for entry in measured]))
    best = float(np.mean([entry["mean_vector"] >= max(_known(entry["vectors"])) for entry in measured]))
    vector, image = (
        float(mean(np.array([entry[key] for entry in measured]))) for key in ("mean_vector", "image_of_mean")
    )
    total = sum(entry["faces_found"] for entry in measured)
    report = {"seed": seed, "options": options, "one_person": one_person, "people": measured, "mean_is_best": best}
    effect = Effect(
        control="mean ID",
        change=f"each of {len(sets[0][1])} photographs -> their mean, {len(sets)} people",
        kept=f"generated faces {image_mean:.2f} from single photographs -> {image:.2f} from the mean, {total} images",
        moved=(
            f"similarity of the ID vector to {against} {single_mean:.2f} -> {vector:.2f}; nearer than the best single "
            f"one for {best:.0%} of the people"
        ),
    )
    click.echo(save(out, "mean", sheet, [effect], report))


_Set = tuple[str, dict[str, Picture], NDArray[np.float32], NDArray[np.float32] | None]


def _alterations(studio: Studio, person: Person) -> _Set:
    """Altered pictures of a person, their ID vectors (NaN without a face), and the true one."""
    pictures = {name: alter(person.image) for name, alter in ALTERED.items()}
    return person.name, pictures, studio.embed(np.stack(list(pictures.values()))), person.vector


def _photographs(people: list[Person]) -> _Set:
    if len(people) < 3:
        raise InvalidInputError(
            f"{len(people)} photographs: --one-person needs three, to compare a mean with another one"
        )
    return "person", {one.name: one.image for one in people}, np.stack([one.vector for one in people]), None


def _agreement(vectors: NDArray[np.float32], truth: NDArray[np.float32] | None) -> tuple[Floats, float]:
    """Similarity of each vector to the truth, and of their mean.

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


def _known(values: list[float | None]) -> list[float]:
    return [value for value in values if value is not None]
