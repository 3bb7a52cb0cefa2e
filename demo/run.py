"""`make demo`: the whole product once, on a synthetic portrait, through the real Triton server.

Portrait -> ID vector -> faces of that identity for several seeds at 64 px and 256 px -> one picture, the similarity of
each face to the portrait under the same face-recognition model, and the time per image.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from id3pm.command_options import REPOSITORY
from id3pm.errors import Id3pmError
from id3pm.evaluation.faces import HEAD_MARGIN, face_square
from id3pm.evaluation.figures.grid import Tile, grid
from id3pm.evaluation.robustness import thresholds
from id3pm.evaluation.robustness.thresholds import Threshold
from id3pm.face.manifest import read_manifest
from id3pm.formats.images import png_info
from id3pm.formats.photo_decoding import decode_photo
from id3pm.serving.launcher.settings import ServerSettings
from id3pm.serving.launcher.triton_server import TritonServer
from id3pm_client import Client, ClientError, GeneratedImage, InvalidRequestError

TILE = 256
PORTRAIT = Path("demo/people/03.png")
"""A GAN made the face; the demo bundle's training did not see it."""

console = Console()


def similarity(client: Client, image: Image.Image, target: np.ndarray) -> float | None:
    """Cosine of the ID vector found in `image` and the target ID vector, or `None` where no usable face is found."""
    try:
        return float(client.embed(image).vector @ target)
    except InvalidRequestError:
        return None


def show_arrival(position: int, image: GeneratedImage) -> None:
    """Reports one finished image."""
    console.print(f"  seed {image.seed}: {image.seconds:.1f} s")


def settings(receipt: dict[str, Any]) -> str:
    """How an image was sampled, from its receipt."""
    base, sr = (receipt["stages"][stage]["options"] for stage in ("base", "sr"))
    return (
        f"64 px: {base['steps']} steps {base['sampler']}, guidance {base['guidance_scale']:g}; "
        f"256 px: {sr['steps']} steps {sr['sampler']}"
    )


def known_threshold(repository: Path) -> Threshold | None:
    """From which similarity on the served face-recognition model takes two pictures for one person, where measured."""
    face = read_manifest(repository / "face_embedding/1/engine")
    return thresholds.read().get(f"{face.id_vector_model} {face.source_sha256}")


def sheet(photo: Tile, images: list[GeneratedImage], captions: list[tuple[str, str]], notes: str) -> Image.Image:
    """The portrait on the left; for each seed the 64 px face above the 256 px face, with captions."""
    rows: list[list[Tile | None]] = [[photo], [None]]
    for image, (low, high) in zip(images, captions, strict=True):
        rows[0].append(Tile(np.asarray(image.image_64), low))
        rows[1].append(Tile(np.asarray(image.image), high))
    return grid(rows, title=f"Faces generated from the ID vector of a portrait\n{notes}", size=TILE)


@click.command()
@click.option("--repository", type=REPOSITORY, default=Path("triton_repo"), show_default=True)
@click.option("--photo", type=click.Path(path_type=Path), default=PORTRAIT, show_default=True)
@click.option("--seeds", default=4, show_default=True, type=click.IntRange(1, 64), help="How many faces to generate.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("out"), show_default=True)
def main(repository: Path, photo: Path, seeds: int, out: Path) -> None:
    """Generate faces of the person in PHOTO through the Triton server and write them to OUT."""
    out.mkdir(parents=True, exist_ok=True)
    data = photo.read_bytes()
    with (
        TritonServer(repository, ServerSettings.on_free_ports()) as server,
        Client(server.grpc_url) as client,
    ):
        face = client.embed(data)
        console.print(f"found {face.faces} face(s) in {photo}, detection score {face.score:.2f}")
        start = time.perf_counter()
        console.print(f"generating {seeds} face(s) ...")
        images = client.generate(face.vector, list(range(seeds)), on_image=show_arrival)  # as the bundle says
        seconds = time.perf_counter() - start
        at_256 = [similarity(client, image.image, face.vector) for image in images]
        at_64 = [similarity(client, image.image_64, face.vector) for image in images]

    table = Table("seed", "similarity 64 px", "similarity 256 px", "file", title="identity similarity to the portrait")
    captions = []
    for image, low, high in zip(images, at_64, at_256, strict=True):
        name = out / f"seed-{image.seed}.png"
        image.save(name)
        shown = ["no face" if value is None else f"{value:.2f}" for value in (low, high)]
        captions.append((f"seed {image.seed}, 64 px: {shown[0]}", f"256 px: {shown[1]}"))
        table.add_row(str(image.seed), *shown, str(name))
    console.print(table)
    notes = "Below each face: cosine similarity of its ID vector to the portrait's."
    if limit := known_threshold(repository):
        notes += f" {limit.judge} takes two pictures for one person from {limit.cosine:.2f} on."
    console.print(notes, soft_wrap=True)
    portrait = Tile(face_square(decode_photo(data), np.asarray(face.box), HEAD_MARGIN, "edge"), "portrait")
    sheet(portrait, images, captions, notes).save(out / "demo.png", pnginfo=png_info(generated=True))
    each = seconds / len(images)
    timing = f"{len(images)} images in {seconds:.1f} s: {each:.1f} s per image ({settings(images[0].receipt)})"
    console.print(timing, soft_wrap=True)
    console.print(f"picture: [bold]{(out / 'demo.png').resolve()}", soft_wrap=True)  # a path that can be copied


if __name__ == "__main__":
    try:
        main()
    except (Id3pmError, ClientError, OSError) as error:
        sys.exit(f"demo: {error}")
