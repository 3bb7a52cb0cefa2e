"""ID vectors of turned and tilted photographs, compared with those of the upright ones.

    python benchmarks/face_turns.py                 # the portraits of the demo and a photograph, at 24 tilts
    python benchmarks/face_turns.py --faces 200     # GAN faces besides, unfiltered, at six tilts

Every picture is tilted (outside it is black), embedded as the service does it, and its ID vector compared with that of
the upright picture. A face counts as right from a cosine of 0.6 on and as a stranger's below SFace's own threshold,
0.363. Figures: docs/face_models.md.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from id3pm.command_options import REPOSITORY
from id3pm.errors import FaceError
from id3pm.face.stage import FaceResult, FaceStage
from id3pm.formats.images import encode_png
from id3pm.formats.photo_decoding import decode_photo
from id3pm.samples import PEOPLE, PHOTOGRAPH
from id3pm.training.gan import FaceGenerator

TILTS = range(-165, 181, 15)
FEW_TILTS = (0, 90, 180, -90, 45, -30)
RIGHT, STRANGER = 0.6, 0.363
SEED = 77
Pixels = NDArray[np.uint8]


def tilted(image: Pixels, degrees: int) -> Pixels:
    """The whole picture [H, W, 3] turned counter-clockwise; exact for quarters, and on black otherwise."""
    if degrees % 90 == 0:
        return np.ascontiguousarray(np.rot90(image, degrees // 90))
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    cosine, sine = np.abs(matrix[0, :2])
    size = (round(height * sine + width * cosine), round(height * cosine + width * sine))
    matrix[:, 2] += (np.array(size) - (width, height)) / 2
    return np.asarray(cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR), np.uint8)


def measure(stage: FaceStage, pictures: Mapping[str, Pixels], tilts: range | tuple[int, ...]) -> list[str]:
    """Lines of a table: what became of all pictures at each tilt."""
    outcomes: dict[int, Counter[str]] = defaultdict(Counter)
    cosines: dict[int, list[float]] = defaultdict(list)
    plain: dict[int, list[float]] = defaultdict(list)
    seconds: dict[int, float] = defaultdict(float)
    for image in pictures.values():
        (upright,) = stage.embed_images(image[None])
        if not isinstance(upright, FaceResult):
            continue
        for degrees in tilts:
            shown = tilted(image, degrees)
            (stored,) = stage.embed_images(shown[None])
            if isinstance(stored, FaceResult):
                plain[degrees].append(float(stored.embedding @ upright.embedding))
            data, began = encode_png(shown), time.thread_time()
            try:
                result = stage.embed(data)
            except FaceError:
                outcomes[degrees]["refused"] += 1
                continue
            finally:
                seconds[degrees] += time.thread_time() - began
            cosine = float(result.embedding @ upright.embedding)
            cosines[degrees].append(cosine)
            word = "right" if cosine >= RIGHT else "weak" if cosine >= STRANGER else "stranger"
            outcomes[degrees][word] += 1
            outcomes[degrees]["turned"] += result.turned != 0
    lines = ["| tilt | cosine as stored, median | right | weak | a stranger's | refused | lowest cosine | ms |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for degrees in tilts:
        seen = outcomes[degrees]
        total = sum(seen[word] for word in ("right", "weak", "stranger", "refused"))
        before = f"{np.median(plain[degrees]):.2f}" if plain[degrees] else "-"
        lowest = f"{min(cosines[degrees]):.2f}" if cosines[degrees] else "-"
        counts = " | ".join(str(seen[word]) for word in ("right", "weak", "stranger", "refused"))
        turned = f" ({seen['turned']} turned)" if not degrees else ""
        milliseconds = 1e3 * seconds[degrees] / max(total, 1)
        lines.append(f"| {degrees}{turned} | {before} | {counts} | {lowest} | {milliseconds:.0f} |")
    return lines


@click.command(help=__doc__)
@click.option("--faces", default=0, help="GAN faces to measure besides.")
@click.option("--repository", default="triton_repo", type=REPOSITORY, help="With the face models.")
def main(faces: int, repository: Path) -> None:
    """Command line; see the module's text."""
    stage = FaceStage.load(repository / "face_embedding" / "1" / "engine", threads=1)
    portraits = {file.name: decode_photo(file.read_bytes()) for file in [*sorted(PEOPLE.glob("*.png")), PHOTOGRAPH]}
    click.echo(f"{len(portraits)} portraits")
    click.echo("\n".join(measure(stage, portraits, TILTS)))
    if faces:
        made = FaceGenerator().sample(SEED, range(faces))
        click.echo(f"\n{faces} GAN faces, seed {SEED}")
        click.echo("\n".join(measure(stage, {str(row): face for row, face in enumerate(made)}, FEW_TILTS)))


if __name__ == "__main__":
    main()
