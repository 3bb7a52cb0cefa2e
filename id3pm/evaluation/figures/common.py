"""What the sheets of the ID-vector space share: their options, a bundle's files, summaries of what was measured."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import click
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from id3pm.errors import InvalidInputError
from id3pm.evaluation.figures.commands import required_paths, shared_options
from id3pm.evaluation.figures.generator import FaceGenerator, Person
from id3pm.evaluation.figures.grid import Tile, beside, grid
from id3pm.formats.bundle import Latent, latent_file
from id3pm.idspace.directions import Directions
from id3pm.idspace.pca import Pca
from id3pm.idspace.space import Space

F = TypeVar("F", bound=Callable[..., Any])
Floats = NDArray[np.float64]

FACE, STEP = 192, 144
"""Pixels of the pictures of a person and of the steps away from it."""
LINE_LENGTH = 13
"""Letters of a line beside a row."""

bundle_option = click.option(
    "--bundle",
    type=click.Path(path_type=Path, file_okay=False),
    callback=required_paths("give the bundle that the engines were built from, with its latent/ folder"),
    default=Path("bundles/demo"),
    help="Bundle whose latent/ folder is used.",
)


def latent_options(count: int, what: str = "people") -> Callable[[F], F]:
    """The options of a sheet of the ID-vector space; the effect is measured on all people, not only on those shown."""
    options = (
        click.option("--show", type=click.IntRange(1), default=count, help=f"How many {what} the picture shows."),
        click.option(
            "--person",
            "names",
            multiple=True,
            help="Person that the picture shows, by the name of the photograph; may be repeated.",
        ),
        click.option(
            "--super-resolution/--no-super-resolution",
            default=True,
            help="Show 256 px images (default); measured are the 64 px images that they are made of.",
        ),
    )

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return shared_options(command)

    return decorate


def rows_shown(candidates: Sequence[str], count: int, names: Sequence[str]) -> list[int]:
    """Which rows a picture shows: those of these names, or else the first `count`.

    Raises:
        click.BadParameter: No person has that name.
    """
    if unknown := [name for name in names if name not in candidates]:
        raise click.BadParameter(f"--person {unknown[0]}: choose one of {', '.join(sorted(candidates))}")
    return [list(candidates).index(name) for name in names] or list(range(min(count, len(candidates))))


def to_show(generator: FaceGenerator, images: NDArray[np.uint8], seed: int, large: bool) -> NDArray[np.uint8]:
    """Images uint8 [..., 64, 64, 3] for a sheet: as they are, or at 256 px."""
    if not large:
        return images
    enlarged = generator.enlarge(images.reshape(-1, *images.shape[-3:]), seed)
    return enlarged.reshape(*images.shape[:-3], *enlarged.shape[1:])


def setting(generator: FaceGenerator, seed: int, options: dict[str, Any], large: bool) -> str:
    """What all images of a sheet share, for its title."""
    defaults = generator.pipeline.base_manifest.sampling
    shown = "shown at 256 px, measured at 64 px" if large else "64 px"
    return f"Seed {seed}, {options.get('steps', defaults.steps)} steps, guidance {defaults.guidance_scale:g}, {shown}."


def walks(
    person: Person,
    unchanged: Tile,
    rows: Sequence[Sequence[Tile | None]],
    *,
    columns: Sequence[str],
    labels: Sequence[str],
    ends: Sequence[tuple[str, str]],
) -> Image.Image:
    """Ways away from a person, a row each, beside the photograph and the unchanged face."""
    faces = grid([[Tile(person.image, f"{person.name}\nphotograph")], [unchanged]], size=FACE)
    return beside(faces, grid(rows, columns=columns, labels=labels, ends=ends, size=STEP))


def end(words: str, side: Literal["left", "right"]) -> str:
    """What an end leads to, in short lines with a sign that points there."""
    lines = textwrap.wrap(words, LINE_LENGTH) or [""]
    return "\n".join([f"\u2039 {lines[0]}", *lines[1:]] if side == "left" else [*lines[:-1], f"{lines[-1]} \u203a"])


def enumerated(names: Sequence[str]) -> str:
    """Names in a sentence: `01, 02 and 03`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def load_pca(bundle: Path, generator: FaceGenerator) -> Pca:
    """The bundle's principal axes.

    Raises:
        InvalidInputError: It has none, or they are not for the vectors that the engines take.
        BundleError: The file is damaged.
    """
    pca = Pca.load(_file(bundle, "pca"))
    _space(generator).require(pca.space, f"{bundle.name}/latent/pca.npz")
    return pca


def load_directions(bundle: Path, generator: FaceGenerator) -> Directions:
    """The bundle's custom directions.

    Raises:
        InvalidInputError: It has none, or they are not for the vectors that the engines take.
        BundleError: The file is damaged.
    """
    directions = Directions.load(_file(bundle, "directions"))
    _space(generator).require(directions.space, f"{bundle.name}/latent/directions.npz")
    return directions


def _file(bundle: Path, kind: Latent) -> Path:
    file = latent_file(bundle, kind)
    if file is None:
        command = "fit-pca" if kind == "pca" else "fit-direction"
        raise InvalidInputError(f"bundle {bundle.name!r} has no latent/{kind}.npz: make it with id3pm latent {command}")
    return file


def _space(generator: FaceGenerator) -> Space:
    manifest = generator.pipeline.base_manifest
    assert manifest.unet.identity_dim is not None
    return Space(id_vector_model=manifest.id_vector_model, identity_dim=manifest.unet.identity_dim)


def cosines(found: NDArray[Any], wanted: NDArray[Any]) -> Floats:
    """Cosine similarities of vectors [..., D] with broadcasting; NaN where one is NaN."""
    a, b = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    dots = np.sum(a * b, axis=-1)
    return np.asarray(dots / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)))


def mean(values: ArrayLike, axis: int | None = None) -> Any:
    """Mean without NaN; NaN where there is nothing else."""
    known = np.isfinite(np.asarray(values, np.float64))
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0.0).sum(axis) / known.sum(axis)


def slope(asked: NDArray[Any], got: NDArray[Any]) -> float:
    """How much of what was asked for was got: least squares through the origin over all pairs that are not NaN."""
    known = np.isfinite(got)
    if not np.any(asked[known]):
        return float("nan")
    return float(np.sum(asked[known] * got[known]) / np.sum(asked[known] ** 2))


def rising(values: NDArray[Any]) -> float:
    """Share of neighbours along the last axis of which the second is larger; pairs with NaN do not count."""
    steps = np.diff(np.asarray(values, np.float64), axis=-1)
    return float(mean(np.where(np.isfinite(steps), steps > 0, np.nan)))


def correlation(values: NDArray[Any], against: NDArray[Any]) -> float:
    """Mean over rows [N, T] of the correlation with [T]; rows of fewer than three numbers or of one value are 0."""
    found = []
    for row in np.asarray(values, np.float64):
        known = np.isfinite(row)
        varied = known.sum() > 2 and np.ptp(row[known]) > 0
        found.append(np.corrcoef(row[known], np.asarray(against, np.float64)[known])[0, 1] if varied else 0.0)
    return float(np.mean(found))


def number(value: float, form: str = ".2f", before: str = "") -> str:
    """For captions and effects: two decimals, after what it is; or `no face` where none was found."""
    return "no face" if np.isnan(value) else f"{before} {value:{form}}".lstrip()


def heading(value: float) -> str:
    """For columns: with its sign unless it is zero."""
    return f"{value:+g}" if value else "0"


def listed(values: NDArray[Any]) -> list[Any]:
    """For JSON: nested lists, NaN as `null`, three decimals."""
    rounded = np.round(np.asarray(values, np.float64), 3).astype(object)
    rounded[np.isnan(np.asarray(values, np.float64))] = None
    found: list[Any] = rounded.tolist()
    return found
