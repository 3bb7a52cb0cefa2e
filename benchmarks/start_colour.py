"""Colours of generated faces beside those of the data, begun at noise alone and at the data's mean colour.

python benchmarks/start_colour.py bundles/demo --data data/held_out --people 64
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from skimage.color import rgb2lab

from id3pm.evaluation.dlib_judge import DlibJudge
from id3pm.evaluation.identity.targets import load_targets
from id3pm.evaluation.judges import Judge, StageJudge
from id3pm.face.stage import FaceStage
from id3pm.formats.datasets import load, mean_colour
from training_curve import FOLDER, images_of, network, similarity


def colours(images: NDArray[np.uint8]) -> list[str]:
    """Mean of L*, a*, b* over all pixels of images, and the standard deviation of the images' means."""
    means = np.stack([rgb2lab(image / 255.0).mean((0, 1)) for image in images])
    return [f"{mean:.1f} ({std:.1f})" for mean, std in zip(means.mean(0), means.std(0), strict=True)]


@click.command()
@click.argument("bundle", type=FOLDER)
@click.option("--data", type=FOLDER, default=Path("data/demo"), help="Data set with held-out people.")
@click.option("--faces", type=FOLDER, default=Path("triton_repo/face_embedding/1/engine"))
@click.option("--people", type=click.IntRange(2), default=64)
@click.option("--threads", type=click.IntRange(1), default=1)
def main(bundle: Path, data: Path, faces: Path, people: int, threads: int) -> None:
    """Print the table for BUNDLE."""
    torch.set_num_threads(threads)
    unet, diffusion, id_vector_model, _ = network(bundle)
    targets = load_targets(data, id_vector_model, people, 1)
    stage = FaceStage.load(faces, threads)
    judges: list[Judge] = [StageJudge(stage, ""), DlibJudge(stage, "")]
    real = load(data, "test")["images"]
    lines = [[f"{len(real)} held-out faces", *colours(real), "", ""]]
    mean = diffusion.data_mean or mean_colour(data)
    for name, begun in (("noise alone", None), ("the mean colour", mean)):
        process = dataclasses.replace(diffusion, data_mean=begun)
        images = images_of(unet, process, targets.vectors, range(people))
        judged = [f"{similarity(judge, images, targets.images, targets.vectors)['similarity']:.3f}" for judge in judges]
        lines.append([f"begun at {name}", *colours(images), *judged])
    for line in [["images", "L*", "a*", "b*", *(judge.name for judge in judges)], ["---"] * 6, *lines]:
        click.echo("| " + " | ".join(line) + " |")


if __name__ == "__main__":
    main()
