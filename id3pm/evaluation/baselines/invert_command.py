"""`id3pm baseline gaussian | gan | nbnet | vec2face`: one method on pictures or ID vectors of your own."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np

from id3pm.command_options import EXISTING_FILE, FOLDER, argument, option, takes
from id3pm.errors import InvalidInputError
from id3pm.evaluation.baselines import methods
from id3pm.evaluation.baselines.black_box import BlackBox, Floats, Search
from id3pm.evaluation.baselines.compare_options import BankOptions, SearchOptions, WeightsOptions
from id3pm.evaluation.baselines.study import Made, Maker, OnImages
from id3pm.evaluation.files import SCHEMA, write_json
from id3pm.evaluation.options import EngineOptions
from id3pm.evaluation.progress import progress_bar
from id3pm.evaluation.verification.fr_models import FaceEngineModel
from id3pm.formats.images import encode_png
from id3pm.idspace.files import in_space, read_faces
from id3pm.idspace.space import Space


@dataclasses.dataclass(frozen=True, kw_only=True)
class InvertOptions(EngineOptions):
    """The options of all methods."""

    sources: tuple[Path, ...] = argument(type=EXISTING_FILE, nargs=-1, required=True)
    out: Path = option(type=FOLDER, default=Path("out/baselines"), help="Folder of images and report.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussianOptions(InvertOptions, SearchOptions):
    """The options of `id3pm baseline gaussian`."""

    seeds: int = option(type=click.IntRange(1), default=1, help="Images of each ID vector.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class GanOptions(GaussianOptions, BankOptions):
    """The options of `id3pm baseline gan`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkOptions(InvertOptions, WeightsOptions):
    """The options of `id3pm baseline nbnet` and `id3pm baseline vec2face`."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Targets:
    """What is inverted.

    Attributes:
        black_box: The FR model of the ID vectors.
        labels: One for each ID vector.
        vectors: The ID vectors [N, D].
    """

    black_box: FaceEngineModel
    labels: list[str]
    vectors: Floats

    @classmethod
    def read(cls, options: InvertOptions) -> _Targets:
        """The ID vectors of the sources.

        Raises:
            InvalidInputError: A file has no face, no vectors, or vectors of another FR model; or two have one name.
            EngineError: There are no usable face models.
        """
        black_box = FaceEngineModel(options.repository, options.threads)
        space = Space(id_vector_model=black_box.name, identity_dim=black_box.stage.identity_dim)
        labels: list[str] = []
        parts = []
        for source in options.sources:
            vectors = in_space(read_faces(source, options.repository), space, "the face stage")
            labels += [source.stem if len(vectors) == 1 else f"{source.stem}_{row}" for row in range(len(vectors))]
            parts.append(vectors)
        if twice := [label for number, label in enumerate(labels) if label in labels[:number]]:
            raise InvalidInputError(f"two sources have the name {twice[0]!r}: their images would replace each other")
        return cls(black_box, labels, np.concatenate(parts))


@click.command("gaussian", short_help="Gaussian sampling of ID vectors of your own.")
@takes(GaussianOptions)
def gaussian_command(options: GaussianOptions) -> None:
    """Gaussian sampling (Razzhigaev et al. 2020) of the ID vectors of SOURCES.

    SOURCES are pictures, of which the largest face is taken, or ID vectors (.npy, .npz). Writes an image for each ID
    vector and seed, and gaussian.json with similarity, queries and seconds. What has been made is kept in --out.
    """
    targets = _Targets.read(options)
    _search("gaussian", options, targets, methods.open_gaussian([], authors_code=options.authors_code))


@click.command("gan", short_help="GAN search of ID vectors of your own.")
@takes(GanOptions)
def gan_command(options: GanOptions) -> None:
    """GAN search (Vendrow and Vendrow 2021) of the ID vectors of SOURCES.

    SOURCES are pictures, of which the largest face is taken, or ID vectors (.npy, .npz). Writes an image for each ID
    vector and seed, and gan.json with similarity, queries and seconds. What has been made is kept in --out.
    """
    targets = _Targets.read(options)  # before the bank, which takes a while
    with progress_bar() as bar:
        search = methods.open_gan_search(
            targets.black_box,
            options.cache(),
            options.bank,
            options.generator,
            authors_code=options.authors_code,
            threads=options.threads,
            on_images=functools.partial(bar.advance, bar.add_task("bank of the GAN", total=options.bank)),
        )
    _search("gan", options, targets, search)


@click.command("nbnet", short_help="NbNet of ID vectors of your own.")
@takes(NetworkOptions)
def nbnet_command(options: NetworkOptions) -> None:
    """NbNet (Mai et al. 2018) of the ID vectors of SOURCES.

    SOURCES are pictures, of which the largest face is taken, or ID vectors (.npy, .npz). Writes an image for each ID
    vector, and nbnet.json with similarity and seconds.
    """
    _network("nbnet", options)


@click.command("vec2face", short_help="Vec2Face of ID vectors of your own.")
@takes(NetworkOptions)
def vec2face_command(options: NetworkOptions) -> None:
    """Vec2Face (Duong et al. 2020), after its published description, of the ID vectors of SOURCES.

    SOURCES are pictures, of which the largest face is taken, or ID vectors (.npy, .npz). Writes an image for each ID
    vector, and vec2face.json with similarity and seconds. Its weights must be trained first: id3pm baseline train.
    """
    _network("vec2face", options)


def _search(name: str, options: GaussianOptions, targets: _Targets, search: Search) -> None:
    def make(vectors: Floats, on_queries: OnImages) -> Made:
        return Maker(targets.black_box, options.cache(), options.queries).search(
            search, vectors, options.seeds, on_queries
        )

    _invert(name, search.name, options, targets, make, options.seeds * options.queries)


def _network(name: str, options: NetworkOptions) -> None:
    targets = _Targets.read(options)
    network = methods.open_network(name, options.weights, targets.black_box.name, [])

    def make(vectors: Floats, on_images: OnImages) -> Made:
        return Maker(targets.black_box, options.cache(), 0).direct(network, vectors, 1, on_images)

    _invert(name, network.name, options, targets, make, 1)


def _invert(
    name: str,
    title: str,
    options: InvertOptions,
    targets: _Targets,
    make: Callable[[Floats, OnImages], Made],
    work: int,
) -> None:
    """Makes the images, judges them by the black box and writes both; `work` is the progress of one ID vector."""
    vectors, black_box = targets.vectors, targets.black_box
    with progress_bar() as bar:
        made = make(vectors, functools.partial(bar.advance, bar.add_task(title, total=len(vectors) * work)))
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for label, vector, images in zip(targets.labels, vectors, made.images, strict=True):
        similarities = BlackBox(black_box.embed).similarities(list(images), vector, aligned=made.aligned)
        for seed, (image, similarity) in enumerate(zip(images, similarities, strict=True)):
            file = options.out / f"{name}_{label}_{seed}.png"
            file.write_bytes(encode_png(image, generated=True))
            rows.append({"source": label, "seed": seed, "file": file.name, "similarity": float(similarity)})
            click.echo(f"{file}: similarity {similarity:.3f}")
    report = {
        "schema": SCHEMA,
        "method": title,
        "black box": black_box.name,
        "queries per image": made.queries,
        "seconds per image": made.seconds,
        "processor seconds per image": made.processor_seconds,
        "rows": rows,
    }
    write_json(options.out / f"{name}.json", report)
