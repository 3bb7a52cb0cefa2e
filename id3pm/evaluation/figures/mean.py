"""One ID vector for several photographs of a person, good and bad ones (paper, supplement 5.2, Fig. 11)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from id3pm.command_options import option, takes
from id3pm.errors import InvalidInputError
from id3pm.evaluation.figures.common import Floats, cosines, enumerated, listed, mean, number
from id3pm.evaluation.figures.generator import Person
from id3pm.evaluation.figures.grid import Tile, below, grid
from id3pm.evaluation.figures.sheet import Effect, LatentOptions, Session, rows_shown
from id3pm.idspace.vectors import mean_vector

Picture = NDArray[np.uint8]
SIZE = 112
"""Pixels of each picture in the sheet."""


def _noisy(image: Picture) -> Picture:
    noise = np.random.Generator(np.random.Philox(0)).normal(0.0, 14.0, image.shape)
    return np.asarray(np.clip(image + noise, 0, 255), np.uint8)


def _covered(top: float, bottom: float) -> Callable[[Picture], Picture]:
    """Covers a band between two shares of the height with black, as wide as a face that fills the square."""

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
"""Changes of photographs by name: uint8 [S, S, 3] -> the same shape."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeanOptions(LatentOptions):
    """The options of `id3pm sheet mean`."""

    one_person: bool = option(is_flag=True, help="The photographs are of one person; nothing is altered.")

    @property
    def against(self) -> str:
        """What ID vectors are compared with."""
        return "the others" if self.one_person else "the clean photograph"


@click.command("mean")
@takes(MeanOptions)
def mean_command(options: MeanOptions) -> None:
    """Mean ID (Fig. 11): each person in difficult pictures, the face from every single one, and from their mean."""
    one = options.one_person
    with options.session() as session:
        albums = [_photographs(session.people)] if one else [_altered(session, person) for person in session.people]
        shown = rows_shown([album.name for album in albums], options.show, options.names)
        measured = [_measure(session, album) for album in albums]
        pictures = [session.to_show(measured[row].drawn) for row in shown]
        notes = session.notes()
    who = "one person" if one else enumerated([albums[row].name for row in shown])
    told = "; for the mean, that of all others to the one left out" if one else ""
    title = (
        f"Mean ID vector of several photographs of {who}\n{notes} Above: cosine similarity of each photograph's ID "
        f"vector to that of {options.against}{told}. Below: the same of the face generated from it."
    )
    blocks = [_block(albums[row], measured[row], drawn) for row, drawn in zip(shown, pictures, strict=True)]
    report = {
        "seed": options.seed,
        "one_person": one,
        "people": [_numbers(*each) for each in zip(albums, measured, strict=True)],
        "mean_is_best": _best(measured),
    }
    options.write("mean", below(*blocks, title=title), [_effect(options, albums, measured)], report)


@dataclasses.dataclass(frozen=True, eq=False)
class _Album:
    """Pictures of one person.

    Attributes:
        name: Name of the person.
        pictures: uint8 [S, S, 3] by name.
        vectors: Their ID vectors [N, D], NaN without a face.
        truth: The ID vector of the clean photograph [D], or `None` where there is none.
        clean: That photograph.
    """

    name: str
    pictures: dict[str, Picture]
    vectors: NDArray[np.float32]
    truth: NDArray[np.float32] | None = None
    clean: Picture | None = None

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Which pictures show a face, [N]."""
        return np.asarray(np.isfinite(self.vectors).all(axis=1))


@dataclasses.dataclass(frozen=True, eq=False)
class _Measured:
    """Measurements of the M usable pictures of an album.

    Attributes:
        single: Similarity of each picture's vector to the truth, [M]; see `agreement`.
        whole: That of their mean.
        drawn: The faces that are shown, uint8 [.., S, S, 3]: that of the clean photograph, where there is one, those of
            the pictures, and last that of their mean.
        images: Similarity to the truth of the faces generated from single pictures, [M].
        image_of_mean: That of the face generated from the mean, [1]; without a truth, of the faces generated from the
            mean of all others to the picture left out, [M].
        clean: That of the face generated from the truth itself, or NaN.
    """

    single: Floats
    whole: float
    drawn: NDArray[np.uint8]
    images: Floats
    image_of_mean: Floats
    clean: float = float("nan")


def _best(measured: list[_Measured]) -> float:
    """For which share of the people the mean is nearer than the best single picture."""
    return float(np.mean([each.whole >= each.single.max() for each in measured]))


def _effect(options: MeanOptions, albums: list[_Album], measured: list[_Measured]) -> Effect:
    single, whole, image, image_of_mean = (
        mean([mean(getattr(each, name)) for each in measured])
        for name in ("single", "whole", "images", "image_of_mean")
    )
    clean = "" if options.one_person else f", {number(mean([each.clean for each in measured]))} from the clean one"
    count = sum(len(each.images) + each.image_of_mean.size for each in measured)
    return Effect(
        control="mean ID",
        change=f"each of {len(albums[0].pictures)} photographs -> their mean, {len(albums)} people",
        kept=(
            f"generated faces {number(image)} from single photographs -> {number(image_of_mean)} from the mean{clean}, "
            f"{count} images"
        ),
        moved=(
            f"similarity of the ID vector to {options.against} {single:.2f} -> {whole:.2f}; nearer than the best "
            f"single one for {_best(measured):.0%} of the people"
        ),
    )


def _measure(session: Session, album: _Album) -> _Measured:
    vectors = album.vectors[album.usable]
    together = mean_vector(vectors)[np.newaxis]
    single, whole = agreement(vectors, album.truth)
    if album.truth is not None:
        requested = np.concatenate([album.truth[np.newaxis], vectors, together])
        faces = session.generate(requested)
        near = cosines(faces.vectors, album.truth)
        return _Measured(single, whole, faces.images, near[1:-1], near[-1:], float(near[0]))
    requested = np.concatenate([vectors, together])
    others = np.stack([mean_vector(np.delete(vectors, row, axis=0)) for row in range(len(vectors))])
    faces = session.generate(np.concatenate([requested, others]))
    count = len(vectors)
    near = cosines(faces.vectors[:count, np.newaxis], vectors)
    np.fill_diagonal(near, np.nan)
    left_out = cosines(faces.vectors[count + 1 :], vectors)
    return _Measured(single, whole, faces.images[: count + 1], mean(near, axis=1), left_out)


def _block(album: _Album, measured: _Measured, drawn: NDArray[np.uint8]) -> Image.Image:
    """The pictures, and below them what is generated from each; last from the mean."""
    seen: list[Tile | None] = []
    made: list[Tile | None] = []
    columns = []
    if album.clean is not None:
        columns.append("clean")
        seen.append(Tile(album.clean, "vector 1"))
        made.append(Tile(drawn[0], number(measured.clean, before="face")))
    position, before = 0, len(seen)
    for (name, picture), usable in zip(album.pictures.items(), album.usable, strict=True):
        columns.append(name)
        if usable:
            seen.append(Tile(picture, f"vector {measured.single[position]:.2f}"))
            made.append(Tile(drawn[before + position], number(measured.images[position], before="face")))
            position += 1
        else:
            seen.append(Tile(picture, "no face"))
            made.append(None)
    columns.append(f"mean of {position}")
    seen.append(Tile(None, f"vector {measured.whole:.2f}"))
    made.append(Tile(drawn[-1], number(mean(measured.image_of_mean), before="face")))
    return grid([seen, made], columns=columns, labels=[f"{album.name}\nphotographs", "generated\nfrom each"], size=SIZE)


def _numbers(album: _Album, measured: _Measured) -> dict[str, object]:
    used = [name for name, usable in zip(album.pictures, album.usable, strict=True) if usable]
    return {
        "person": album.name,
        "pictures": used,
        "no_face": [name for name in album.pictures if name not in used],
        "vectors": listed(measured.single),
        "mean_vector": measured.whole,
        "images": listed(measured.images),
        "image_of_mean": mean(measured.image_of_mean),
        "image_of_clean": measured.clean,
    }


def _altered(session: Session, person: Person) -> _Album:
    pictures = {name: alter(person.image) for name, alter in ALTERED.items()}
    return _Album(
        person.name, pictures, session.generator.embed(np.stack(list(pictures.values()))), person.vector, person.image
    )


def _photographs(people: list[Person]) -> _Album:
    if len(people) < 3:
        raise InvalidInputError(f"{len(people)} photographs: --one-person needs at least three")
    return _Album("one person", {one.name: one.image for one in people}, np.stack([one.vector for one in people]))


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
