"""What the sheets of the ID-vector space share: their options, a bundle's files, summaries of what was measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import numpy as np
from numpy.typing import NDArray

from id3pm.bundle import Latent, latent_file
from id3pm.errors import InvalidInputError
from id3pm.latent.directions import Directions
from id3pm.latent.pca import Pca
from id3pm.latent.vectors import Space
from id3pm.sheets.studio import Studio

F = TypeVar("F", bound=Callable[..., Any])
Floats = NDArray[np.float64]

bundle_option = click.option(
    "--bundle",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path("bundles/demo"),
    help="Bundle whose latent/ folder is used.",
)


def show_option(count: int, what: str = "people") -> Callable[[F], F]:
    """How many rows the picture has; the effect is measured on all."""
    return click.option("--show", type=click.IntRange(1), default=count, help=f"How many {what} the picture shows.")


def load_pca(bundle: Path, studio: Studio) -> Pca:
    """The bundle's principal axes.

    Raises:
        InvalidInputError: It has none, or they are not for the vectors that the engines take.
        BundleError: The file is damaged.
    """
    pca = Pca.load(_file(bundle, "pca"))
    _space(studio).require(pca.space, f"{bundle.name}/latent/pca.npz")
    return pca


def load_directions(bundle: Path, studio: Studio) -> Directions:
    """The bundle's custom directions.

    Raises:
        InvalidInputError: It has none, or they are not for the vectors that the engines take.
        BundleError: The file is damaged.
    """
    directions = Directions.load(_file(bundle, "directions"))
    _space(studio).require(directions.space, f"{bundle.name}/latent/directions.npz")
    return directions


def _file(bundle: Path, kind: Latent) -> Path:
    file = latent_file(bundle, kind)
    if file is None:
        command = "fit-pca" if kind == "pca" else "fit-direction"
        raise InvalidInputError(f"bundle {bundle.name!r} has no latent/{kind}.npz: make it with id3pm latent {command}")
    return file


def _space(studio: Studio) -> Space:
    manifest = studio.pipeline.base_manifest
    assert manifest.unet.identity_dim is not None
    return Space(id_vector_model=manifest.id_vector_model, identity_dim=manifest.unet.identity_dim)


def cosines(found: NDArray[Any], wanted: NDArray[Any]) -> Floats:
    """Cosine similarities of vectors [..., D] with broadcasting; NaN where one is NaN."""
    a, b = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    dots = np.sum(a * b, axis=-1)
    return np.asarray(dots / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)))


def mean(values: NDArray[Any], axis: int | None = None) -> Any:
    """Mean without NaN."""
    return np.nanmean(np.asarray(values, np.float64), axis=axis)


def slope(asked: NDArray[Any], got: NDArray[Any]) -> float:
    """How much of what was asked for was got: least squares through the origin over all pairs that are not NaN."""
    known = np.isfinite(got)
    return float(np.sum(asked[known] * got[known]) / np.sum(asked[known] ** 2))


def rising(values: NDArray[Any]) -> float:
    """Share of neighbours along the last axis of which the second is larger; pairs with NaN do not count."""
    steps = np.diff(np.asarray(values, np.float64), axis=-1)
    return float(np.mean(steps[np.isfinite(steps)] > 0))


def correlation(values: NDArray[Any], against: NDArray[Any]) -> float:
    """Mean over rows [N, T] of the correlation with [T]; rows of fewer than three numbers or of one value are 0."""
    found = []
    for row in np.asarray(values, np.float64):
        known = np.isfinite(row)
        varied = known.sum() > 2 and np.ptp(row[known]) > 0
        found.append(np.corrcoef(row[known], np.asarray(against, np.float64)[known])[0, 1] if varied else 0.0)
    return float(np.mean(found))


def number(value: float) -> str:
    """For captions: two decimals, or a dash where there is no face."""
    return "-" if np.isnan(value) else f"{value:.2f}"


def signed(value: float, decimals: int = 1) -> str:
    """For captions: with its sign, or a dash where there is no face."""
    return "-" if np.isnan(value) else f"{value:+.{decimals}f}"


def heading(value: float) -> str:
    """For columns: with its sign unless it is zero."""
    return f"{value:+g}" if value else "0"


def listed(values: NDArray[Any]) -> list[Any]:
    """For JSON: nested lists, NaN as `null`, three decimals."""
    rounded = np.round(np.asarray(values, np.float64), 3).astype(object)
    rounded[np.isnan(np.asarray(values, np.float64))] = None
    found: list[Any] = rounded.tolist()
    return found
