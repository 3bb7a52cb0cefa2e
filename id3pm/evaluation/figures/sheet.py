"""What all sheets share: their options, the people with their generated faces, the files that a sheet writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import click
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from id3pm.command_options import BUNDLE, FOLDER, REPOSITORY, given, option, required_paths
from id3pm.errors import InvalidInputError
from id3pm.evaluation.figures.generator import FaceGenerator, GeneratedFaces, Person
from id3pm.evaluation.files import write_json
from id3pm.formats.bundle import Latent, latent_file
from id3pm.formats.images import png_info
from id3pm.idspace.directions import Directions
from id3pm.idspace.pca import Pca
from id3pm.idspace.space import Space
from id3pm.pipeline import Pipeline
from id3pm.samples import PEOPLE


@dataclasses.dataclass(frozen=True, kw_only=True)
class SheetOptions:
    """The options of every sheet."""

    repository: Path = option(type=REPOSITORY, default=Path("triton_repo"), help="Built engines.")
    photos: tuple[Path, ...] = option(
        "--photo",
        type=click.Path(path_type=Path),
        callback=required_paths("give a portrait, or a folder of portraits"),
        multiple=True,
        default=(PEOPLE,),
        show_default="the sample people",
        help="Photograph of a person, or a folder of them; may be repeated.",
    )
    out: Path = option(type=FOLDER, default=Path("out/sheets"))
    seed: int = option(type=click.IntRange(0), default=0, help="Of every image.")
    steps: int | None = option(type=click.IntRange(1), help="Of the 64 px loop; else the bundle's default.")
    threads: int | None = option(type=click.IntRange(1), help="CPU threads; all cores if not given.")

    @property
    def sampling(self) -> dict[str, Any]:
        """The sampling options that were given; the others keep the bundle's defaults."""
        return given(self, "steps")

    @contextmanager
    def generator(self, super_resolution: bool = False) -> Iterator[FaceGenerator]:
        """A generator whose engines are loaded until the end of the `with` block; see `FaceGenerator`."""
        with Pipeline.load(self.repository, threads=self.threads) as pipeline:
            pipeline.check(super_resolution=False, **self.sampling)
            yield FaceGenerator(pipeline, super_resolution)

    def write(self, name: str, sheet: Image.Image, effects: Sequence[Effect], numbers: dict[str, Any]) -> None:
        """See `save`; prints the path of the PNG."""
        click.echo(save(self.out, name, sheet, effects, {"options": self.sampling, **numbers}))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageOptions(SheetOptions):
    """The options of a sheet that measures the images that it shows."""

    super_resolution: bool = option(is_flag=True, help="Show 256 px images.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentOptions(SheetOptions):
    """The options of a sheet of the ID-vector space. Effects are measured on all people, not only on those shown."""

    show: int = option(type=click.IntRange(1), default=2, help="How many people the picture shows.")
    names: tuple[str, ...] = option(
        "--person",
        multiple=True,
        help="Person that the picture shows, by the name of the photograph; may be repeated.",
    )
    super_resolution: bool = option(
        "--super-resolution/--no-super-resolution",
        default=True,
        help="Show 256 px images (default); measured are the 64 px images that they are made of.",
    )

    @contextmanager
    def session(self) -> Iterator[Session]:
        """The people of the photographs, with loaded engines until the end of the `with` block."""
        with self.generator() as generator:
            yield Session(self, generator, generator.people(self.photos))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BundleOptions(LatentOptions):
    """The options of a sheet that uses a bundle's axes or directions."""

    bundle: Path = option(
        type=BUNDLE,
        callback=required_paths("give the bundle that the engines were built from, with its latent/ folder"),
        default=Path("bundles/demo"),
        help="Bundle whose latent/ folder is used.",
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Session:
    """The people of a sheet of the ID-vector space, and the generator of their faces."""

    options: LatentOptions
    generator: FaceGenerator
    people: list[Person]

    @property
    def targets(self) -> NDArray[np.float32]:
        """The people's ID vectors, [P, D]."""
        return np.stack([person.vector for person in self.people])

    @property
    def names(self) -> list[str]:
        """The people's names."""
        return [person.name for person in self.people]

    def shown(self) -> list[int]:
        """Rows of the people that the picture shows; see `rows_shown`."""
        return rows_shown(self.names, self.options.show, self.options.names)

    def generate(self, vectors: NDArray[np.float32]) -> GeneratedFaces:
        """A face of each ID vector [..., D], 64 px, all with the seed of the sheet; arrays are [..., *]."""
        rows = vectors.reshape(-1, vectors.shape[-1])
        faces = self.generator.generate(rows, self.options.seed, **self.options.sampling)
        return faces.shaped(vectors.shape[:-1])

    def to_show(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Images uint8 [..., 64, 64, 3] as the picture shows them: at 256 px, or as they are."""
        if not self.options.super_resolution:
            return images
        large = self.generator.enlarge(images.reshape(-1, *images.shape[-3:]), self.options.seed)
        return large.reshape(*images.shape[:-3], *large.shape[1:])

    def notes(self) -> str:
        """What all images of the sheet share, for its title."""
        defaults = self.generator.pipeline.base_manifest.sampling
        steps = self.options.sampling.get("steps", defaults.steps)
        shown = "shown at 256 px, measured at 64 px" if self.options.super_resolution else "64 px"
        return f"Seed {self.options.seed}, {steps} steps, guidance {defaults.guidance_scale:g}, {shown}."

    def pca(self, bundle: Path) -> Pca:
        """The bundle's principal axes; errors as of `_load`."""
        return self._load(bundle, "pca", Pca.load)

    def directions(self, bundle: Path) -> Directions:
        """The bundle's custom directions; errors as of `_load`."""
        return self._load(bundle, "directions", Directions.load)

    def _load(self, bundle: Path, kind: Latent, load: Callable[[Path], _OfSpace]) -> _OfSpace:
        """Loads a file of the bundle's latent/ folder.

        Raises:
            InvalidInputError: There is none, or it is not for the vectors that the engines take.
            BundleError: The file is damaged.
        """
        file = latent_file(bundle, kind)
        if file is None:
            command = "fit-pca" if kind == "pca" else "fit-direction"
            raise InvalidInputError(
                f"bundle {bundle.name!r} has no latent/{kind}.npz: make it with id3pm latent {command}"
            )
        found = load(file)
        manifest = self.generator.pipeline.base_manifest
        assert manifest.unet.identity_dim is not None
        space = Space(id_vector_model=manifest.id_vector_model, identity_dim=manifest.unet.identity_dim)
        space.require(found.space, f"{bundle.name}/latent/{kind}.npz")
        return found


class _HasSpace(Protocol):
    @property
    def space(self) -> Space: ...


_OfSpace = TypeVar("_OfSpace", bound=_HasSpace)


def rows_shown(candidates: Sequence[str], count: int, names: Sequence[str]) -> list[int]:
    """Which rows a picture shows: those of these names, or else the first `count`.

    Raises:
        click.BadParameter: No person has that name.
    """
    if unknown := [name for name in names if name not in candidates]:
        raise click.BadParameter(f"--person {unknown[0]}: choose one of {', '.join(sorted(candidates))}")
    return [list(candidates).index(name) for name in names] or list(range(min(count, len(candidates))))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Effect:
    """The measured effect of one control, one row of the table in docs/control.md.

    Attributes:
        control: What was changed.
        change: From what to what.
        kept: Mean cosine similarity of the images to the identity they should show, and of how many images.
        moved: What moved, by how much, against what stands still.
    """

    control: str
    change: str
    kept: str
    moved: str


def save(folder: Path, name: str, sheet: Image.Image, effects: Sequence[Effect], numbers: dict[str, Any]) -> Path:
    """Writes NAME.png, which says that it was generated, and NAME.json into a folder.

    Args:
        folder: Made if it is missing.
        name: Of the control.
        sheet: The pictures.
        effects: What was measured, for the table.
        numbers: All that was measured, and with which options, JSON values; what is not finite becomes `null`.

    Returns:
        The PNG.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sheet.save(folder / f"{name}.png", pnginfo=png_info(generated=True))
    write_json(folder / f"{name}.json", {"effects": [dataclasses.asdict(effect) for effect in effects], **numbers})
    return folder / f"{name}.png"
