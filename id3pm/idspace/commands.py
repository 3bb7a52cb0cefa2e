"""Commands `id3pm latent`: `fit-pca`, `fit-direction`, `show`, and those that move a vector."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import get_args

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from id3pm.command_options import EXISTING, REPOSITORY, argument, option, takes
from id3pm.errors import InvalidInputError
from id3pm.face.appearance import LABELS
from id3pm.formats.arrays import DESCRIPTION
from id3pm.idspace.directions import Direction, Directions, Model
from id3pm.idspace.files import Vectors, in_space, labelled, one_model, read_faces, read_vectors, write_vectors
from id3pm.idspace.fitting import fit_direction
from id3pm.idspace.pca import Pca, fit_pca
from id3pm.idspace.space import Space
from id3pm.idspace.tables import directions_table, pca_table, spread
from id3pm.idspace.vectors import lerp, mean_vector, slerp

FILE = click.Path(path_type=Path, dir_okay=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WriteOptions:
    """The options of every command that writes ID vectors of people."""

    repository: Path = option(type=REPOSITORY, default=Path("triton_repo"), help="Built face models, for photographs.")
    out: Path = option(
        type=FILE, required=True, help="File of the vectors: .npz, which names their FR model, or plain .npy."
    )

    def write(self, vectors: NDArray[np.float32], id_vector_model: str | None) -> None:
        """Writes vectors [N, D], and tells the file."""
        write_vectors(self.out, vectors, id_vector_model)
        click.echo(self.out)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MoveOptions(WriteOptions):
    """The options of every command that moves ID vectors through their space."""

    source: Path = option("--vector", type=EXISTING, required=True, help="ID vectors (.npy, .npz), or a photograph.")

    def vectors(self, space: Space, file: Path) -> NDArray[np.float32]:
        """The ID vectors [N, D]; refused where `file` is for another FR model."""
        return in_space(read_faces(self.source, self.repository), space, file.name)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitPcaOptions:
    """The options of `id3pm latent fit-pca`."""

    source: Path = argument(type=EXISTING)
    out: Path = option(type=FILE, required=True, help="File to write, e.g. bundles/NAME/latent/pca.npz.")
    id_vector_model: str | None = option(help="FR model of the vectors, e.g. sface; a data set knows it.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeanOptions(WriteOptions):
    """The options of `id3pm latent mean`."""

    photos: tuple[Path, ...] = argument(type=EXISTING, nargs=-1, required=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlendOptions(WriteOptions):
    """The options of `id3pm latent blend`."""

    first: Path = argument(type=EXISTING)
    second: Path = argument(type=EXISTING)
    shares: tuple[float, ...] = option(
        "--t", type=float, multiple=True, default=(0.5,), help="Share of SECOND; may be repeated."
    )
    linear: bool = option(is_flag=True, help="Along the chord instead of the great circle.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class WalkOptions(MoveOptions):
    """The options of `id3pm latent walk`."""

    pca: Path = argument(type=EXISTING)
    axis: int = option(type=click.IntRange(0), required=True, help="From 0, the axis of largest variance.")
    amounts: tuple[float, ...] = option(
        "--amount", type=float, multiple=True, required=True, help="In L2 norms; may be repeated."
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProjectOptions(MoveOptions):
    """The options of `id3pm latent project`."""

    pca: Path = argument(type=EXISTING)
    counts: tuple[int, ...] = option(
        "--k", type=click.IntRange(0), multiple=True, required=True, help="Axes; may be repeated."
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ApplyOptions(MoveOptions):
    """The options of `id3pm latent apply`."""

    directions: Path = argument(type=EXISTING)
    name: str = option(required=True, help="Of the direction.")
    strengths: tuple[float, ...] = option(
        "--strength", type=float, multiple=True, required=True, help="In steps; may be repeated."
    )
    orthogonal_to: tuple[str, ...] = option(multiple=True, help="A direction to take out of this one; may be repeated.")


@click.group("latent")
def latent_group() -> None:
    """The space of ID vectors: principal axes, custom directions, interpolation, means.

    SOURCE is .npy [N, D], .npz with `vectors` [N, D], or the folder of a data set, of which the training half is taken.
    What moves a vector writes ID vectors for `id3pm-client generate --embedding`; `id3pm sheet` has pictures. Vectors
    of a photograph or of .npz are refused where the axes or directions are for those of another FR model.
    """


@latent_group.command("fit-pca")
@takes(FitPcaOptions)
def fit_pca_command(options: FitPcaOptions) -> None:
    """Principal axes of the ID vectors in SOURCE."""
    vectors = read_vectors(options.source)
    model = _model(vectors, options.id_vector_model)
    pca = fit_pca(vectors.vectors, id_vector_model=model, trained_on=vectors.text)
    pca.save(options.out)
    Console().print(pca_table(pca))
    click.echo(options.out)


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
@takes(MeanOptions)
def mean_command(options: MeanOptions) -> None:
    """One ID vector for several PHOTOS (or .npy, .npz files) of one person; prints their angles to it."""
    photos = options.photos
    given = [read_faces(photo, options.repository) for photo in photos]
    model = one_model(given)
    vectors = np.concatenate([one.vectors for one in given])
    options.write(mean_vector(vectors), model)
    for number, degrees in enumerate(spread(vectors)):
        click.echo(f"{photos[number] if len(photos) == len(vectors) else number}: {degrees:.1f} degrees", err=True)


@latent_group.command("blend")
@takes(BlendOptions)
def blend_command(options: BlendOptions) -> None:
    """Between the people of two photographs or files of vectors: one vector for each --t."""
    first, second = options.first, options.second
    given = [read_faces(first, options.repository), read_faces(second, options.repository)]
    model = one_model(given)
    a, b = (one.vectors for one in given)
    if len(a) != 1 or len(b) != 1:
        raise InvalidInputError(f"{first.name} has {len(a)} vectors and {second.name} {len(b)}: need one each")
    options.write((lerp if options.linear else slerp)(a[0], b[0], options.shares), model)


@latent_group.command("walk")
@takes(WalkOptions)
def walk_command(options: WalkOptions) -> None:
    """Along a principal axis of the file PCA: one vector for each vector and --amount."""
    axes = Pca.load(options.pca)
    walks = [axes.walk(one, options.axis, options.amounts) for one in options.vectors(axes.space, options.pca)]
    options.write(np.concatenate(walks), axes.space.id_vector_model)


@latent_group.command("project")
@takes(ProjectOptions)
def project_command(options: ProjectOptions) -> None:
    """Onto the first k principal axes of the file PCA: one vector for each vector and --k."""
    axes = Pca.load(options.pca)
    vectors = options.vectors(axes.space, options.pca)
    projected = [[axes.project(vector, k) for k in options.counts] for vector in vectors]
    options.write(np.concatenate(projected), axes.space.id_vector_model)


@latent_group.command("apply")
@takes(ApplyOptions)
def apply_command(options: ApplyOptions) -> None:
    """Along a custom direction of the file DIRECTIONS: one vector for each vector and --strength."""
    known = Directions.load(options.directions)
    others = (_named(known, other) for other in options.orthogonal_to)
    direction = _named(known, options.name).orthogonal_to(*others)
    vectors = options.vectors(known.space, options.directions)
    moved = [direction.apply(vector, options.strengths) for vector in vectors]
    options.write(np.concatenate(moved), known.space.id_vector_model)


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
