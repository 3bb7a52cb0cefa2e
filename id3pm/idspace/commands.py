"""Commands `id3pm latent`: `fit-pca`, `fit-direction`, `show`, and those that move a vector."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import get_args

import click
import numpy as np
from numpy.typing import ArrayLike, NDArray
from rich.console import Console
from rich.table import Table

from id3pm.command_options import EXISTING, argument, option, takes
from id3pm.errors import InvalidInputError
from id3pm.face.appearance import LABELS
from id3pm.formats.arrays import DESCRIPTION
from id3pm.idspace.directions import Direction, Directions, Model, Score
from id3pm.idspace.files import Vectors, in_space, labelled, one_model, read_faces, read_vectors, write_vectors
from id3pm.idspace.fitting import fit_direction
from id3pm.idspace.pca import Pca, fit_pca
from id3pm.idspace.vectors import Floats, lerp, mean_vector, slerp, unit

FILE = click.Path(path_type=Path, dir_okay=False)
model_option = click.option("--id-vector-model", help="FR model of the vectors, e.g. sface; a data set knows it.")
vector_option = click.option(
    "--vector", "source", type=EXISTING, required=True, help="ID vectors (.npy, .npz), or a photograph."
)
repository_option = click.option(
    "--repository",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("triton_repo"),
    help="Built face models, for photographs.",
)
out_option = click.option(
    "--out", type=FILE, required=True, help="File of the vectors: .npz, which names their FR model, or plain .npy."
)


@click.group("latent")
def latent_group() -> None:
    """The space of ID vectors: principal axes, custom directions, interpolation, means.

    SOURCE is .npy [N, D], .npz with `vectors` [N, D], or the folder of a data set, of which the training half is taken.
    What moves a vector writes ID vectors for `id3pm-client generate --embedding`; `id3pm sheet` has pictures. Vectors
    of a photograph or of .npz are refused where the axes or directions are for those of another FR model.
    """


@latent_group.command("fit-pca")
@click.argument("source", type=EXISTING)
@click.option("--out", type=FILE, required=True, help="File to write, e.g. bundles/NAME/latent/pca.npz.")
@model_option
def fit_pca_command(source: Path, out: Path, id_vector_model: str | None) -> None:
    """Principal axes of the ID vectors in SOURCE."""
    vectors = read_vectors(source)
    pca = fit_pca(vectors.vectors, id_vector_model=_model(vectors, id_vector_model), trained_on=vectors.text)
    pca.save(out)
    Console().print(pca_table(pca))
    click.echo(out)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitDirectionOptions:
    """The options of `id3pm latent fit-direction`."""

    source: Path = argument(type=EXISTING)
    name: str | None = option(help="Of the direction; else the attribute's.")
    labels: Path | None = option(
        type=EXISTING, help="CSV with the columns index,label, or .npz with `labels` [N] and perhaps `index`."
    )
    attribute: str | None = option(
        help=f"Label of a data set's pictures: one of its attributes, or measured on them: {', '.join(LABELS)}."
    )
    label: str | None = option(help="What is labelled, with its unit, for the reader of the file.")
    low: str | None = option(help="What a negative strength leads to, in a word.")
    high: str | None = option(help="What a positive strength leads to, in a word.")
    model: Model | None = option(
        type=click.Choice(get_args(Model)), help="Else logistic for two values, linear for more."
    )
    penalty: float = option(type=click.FloatRange(0.0, min_open=True), default=1.0, help="L2 penalty on the weights.")
    orthogonal_to: tuple[str, ...] = option(
        multiple=True, help="A direction in --out to take out of this one; may be repeated."
    )
    seed: int = option(type=click.IntRange(0), default=0, help="Of folds and bootstrap.")
    out: Path = option(type=FILE, required=True, help="File to write, or to add the direction to.")
    id_vector_model: str | None = option(help="FR model of the vectors, e.g. sface; a data set knows it.")


@latent_group.command("fit-direction")
@takes(FitDirectionOptions)
def fit_direction_command(options: FitDirectionOptions) -> None:
    """The direction along which a label of the ID vectors in SOURCE grows."""
    vectors = read_vectors(options.source)
    rows, values = labelled(vectors, options.labels, options.attribute)
    known = LABELS.get(options.attribute or "")
    name = options.name or options.attribute
    if name is None:
        raise InvalidInputError("--name: give the direction a name")
    direction = fit_direction(
        rows,
        values,
        name=name,
        label=options.label or (known.text if known else name),
        low=options.low or (known.low if known else f"less {name}"),
        high=options.high or (known.high if known else f"more {name}"),
        id_vector_model=_model(vectors, options.id_vector_model),
        trained_on=vectors.text,
        model=options.model,
        penalty=options.penalty,
        seed=options.seed,
    )
    directions = Directions.load(options.out) if options.out.exists() else Directions(direction.space, ())
    direction = direction.orthogonal_to(*(_named(directions, other) for other in options.orthogonal_to))
    directions.adding(direction).save(options.out)
    Console().print(directions_table(directions.adding(direction)))
    click.echo(options.out)


@latent_group.command("show")
@click.argument("file", type=EXISTING)
def show_command(file: Path) -> None:
    """What a file of axes or directions holds."""
    Console().print(directions_table(Directions.load(file)) if _is_directions(file) else pca_table(Pca.load(file)))


@latent_group.command("mean")
@click.argument("photos", type=EXISTING, nargs=-1, required=True)
@repository_option
@out_option
def mean_command(photos: tuple[Path, ...], repository: Path, out: Path) -> None:
    """One ID vector for several PHOTOS (or .npy, .npz files) of one person; prints their angles to it."""
    given = [read_faces(photo, repository) for photo in photos]
    model = one_model(given)
    vectors = np.concatenate([one.vectors for one in given])
    _write(out, mean_vector(vectors), model)
    for number, degrees in enumerate(spread(vectors)):
        click.echo(f"{photos[number] if len(photos) == len(vectors) else number}: {degrees:.1f} degrees", err=True)


@latent_group.command("blend")
@click.argument("first", type=EXISTING)
@click.argument("second", type=EXISTING)
@click.option("--t", "shares", type=float, multiple=True, default=(0.5,), help="Share of SECOND; may be repeated.")
@click.option("--linear", is_flag=True, help="Along the chord instead of the great circle.")
@repository_option
@out_option
def blend_command(
    first: Path, second: Path, shares: tuple[float, ...], linear: bool, repository: Path, out: Path
) -> None:
    """Between the people of two photographs or files of vectors: one vector for each --t."""
    given = [read_faces(first, repository), read_faces(second, repository)]
    model = one_model(given)
    a, b = (one.vectors for one in given)
    if len(a) != 1 or len(b) != 1:
        raise InvalidInputError(f"{first.name} has {len(a)} vectors and {second.name} {len(b)}: need one each")
    _write(out, (lerp if linear else slerp)(a[0], b[0], shares), model)


@latent_group.command("walk")
@click.argument("pca", type=EXISTING)
@click.option("--axis", type=click.IntRange(0), required=True, help="From 0, the axis of largest variance.")
@click.option("--amount", "amounts", type=float, multiple=True, required=True, help="In L2 norms; may be repeated.")
@vector_option
@repository_option
@out_option
def walk_command(pca: Path, axis: int, amounts: tuple[float, ...], source: Path, repository: Path, out: Path) -> None:
    """Along a principal axis of the file PCA: one vector for each vector and --amount."""
    axes = Pca.load(pca)
    vectors = in_space(read_faces(source, repository), axes.space, pca.name)
    _write(out, np.concatenate([axes.walk(vector, axis, amounts) for vector in vectors]), axes.space.id_vector_model)


@latent_group.command("project")
@click.argument("pca", type=EXISTING)
@click.option("--k", "counts", type=click.IntRange(0), multiple=True, required=True, help="Axes; may be repeated.")
@vector_option
@repository_option
@out_option
def project_command(pca: Path, counts: tuple[int, ...], source: Path, repository: Path, out: Path) -> None:
    """Onto the first k principal axes of the file PCA: one vector for each vector and --k."""
    axes = Pca.load(pca)
    vectors = in_space(read_faces(source, repository), axes.space, pca.name)
    projected = [[axes.project(vector, k) for k in counts] for vector in vectors]
    _write(out, np.concatenate(projected), axes.space.id_vector_model)


@latent_group.command("apply")
@click.argument("directions", type=EXISTING)
@click.option("--name", required=True, help="Of the direction.")
@click.option("--strength", "strengths", type=float, multiple=True, required=True, help="In steps; may be repeated.")
@click.option("--orthogonal-to", multiple=True, help="A direction to take out of this one; may be repeated.")
@vector_option
@repository_option
@out_option
def apply_command(
    directions: Path,
    name: str,
    strengths: tuple[float, ...],
    orthogonal_to: tuple[str, ...],
    source: Path,
    repository: Path,
    out: Path,
) -> None:
    """Along a custom direction of the file DIRECTIONS: one vector for each vector and --strength."""
    known = Directions.load(directions)
    direction = _named(known, name).orthogonal_to(*(_named(known, other) for other in orthogonal_to))
    vectors = in_space(read_faces(source, repository), known.space, directions.name)
    _write(out, np.concatenate([direction.apply(vector, strengths) for vector in vectors]), known.space.id_vector_model)


def _model(vectors: Vectors, given: str | None) -> str:
    """Name of the FR model."""
    if given is not None and vectors.id_vector_model not in (None, given):
        raise InvalidInputError(f"--id-vector-model {given}: SOURCE has vectors of {vectors.id_vector_model}")
    name = given or vectors.id_vector_model
    if name is None:
        raise InvalidInputError("--id-vector-model: say which FR model gave the vectors, as the bundle names it")
    return name


def _named(directions: Directions, name: str) -> Direction:
    if name not in directions:
        raise InvalidInputError(f"there is no direction {name!r}; there are {', '.join(directions) or 'none'}")
    return directions[name]


def _is_directions(file: Path) -> bool:
    """Whether a file says that it holds directions; what is no such file is left to the reader."""
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            return '"kind": "directions"' in str(content[DESCRIPTION])
    except Exception:  # any damage: `Pca.load` says what is wrong with it
        return False


def _write(out: Path, vectors: NDArray[np.float32], id_vector_model: str | None) -> None:
    write_vectors(out, vectors, id_vector_model)
    click.echo(out)


def spread(vectors: ArrayLike) -> Floats:
    """Angles [N] in degrees between ID vectors [N, D] and their mean.

    Raises:
        InvalidInputError: See `mean_vector`.
    """
    centre = mean_vector(vectors).astype(np.float64)
    rows = unit(vectors)
    angles = 2.0 * np.arctan2(np.linalg.norm(rows - centre, axis=1), np.linalg.norm(rows + centre, axis=1))
    return np.asarray(np.degrees(angles))


def pca_table(pca: Pca) -> Table:
    """Explained variance along the first 1, 2, 4, ... axes."""
    table = Table(
        title=f"{len(pca.axes)} axes of {pca.space.id_vector_model} vectors [{pca.space.identity_dim}]",
        caption=f"fitted to: {pca.trained_on}",
    )
    for heading in ("axes", "standard deviation of the last", "variance explained by all"):
        table.add_column(heading, justify="right")
    count = 1
    while count <= len(pca.axes):
        deviation = float(pca.variances[count - 1]) ** 0.5
        table.add_row(str(count), f"{deviation:.3f}", f"{float(pca.explained[:count].sum()):.1%}")
        count *= 2
    return table


def directions_table(directions: Directions) -> Table:
    """One row for each direction, with 95 % confidence intervals."""
    space = directions.space
    table = Table(
        title=f"{len(directions)} directions for {space.id_vector_model} vectors [{space.identity_dim}]",
        caption="accuracy and R2: of 5-fold cross-validation",
    )
    for heading in ("name", "from", "to", "step", "accuracy", "R2", "orthogonal to"):
        table.add_column(heading)
    for name, direction in directions.items():
        card = direction.card
        accuracy, r2 = scores(card.score)
        table.add_row(name, card.low, card.high, f"{card.step:.3f}", accuracy, r2, ", ".join(card.orthogonal_to))
    return table


def scores(score: Score | None) -> tuple[str, str]:
    """Accuracy and R2 with their intervals; empty where there is none."""
    if score is None:
        return "", ""
    low, high = score.accuracy_interval
    accuracy = f"{score.accuracy:.3f} ({low:.3f} .. {high:.3f})"
    if score.r2 is None or score.r2_interval is None:
        return accuracy, ""
    return accuracy, f"{score.r2:.2f} ({score.r2_interval[0]:.2f} .. {score.r2_interval[1]:.2f})"
