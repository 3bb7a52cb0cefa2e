"""Similarity to held-out people over the images that a run has seen.

    python benchmarks/training_curve.py measure bundles/demo runs/base --people 100
    python benchmarks/training_curve.py draw

Each call of `measure` adds a point per bundle or run to out/training_curve.json: the same people and the same seeds
every time, so that points may be compared. Runs are judged by their averaged weights. `--photographs FOLDER` adds the
people of photographs; no picture is kept. PyTorch computes, no engine is built: a run may be measured while it goes on.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from id3pm.config import DiffusionConfig, SamplingOptions
from id3pm.evaluation import files
from id3pm.evaluation.dlib_judge import DlibJudge
from id3pm.evaluation.identity.photographs import likenesses, people_of, summary
from id3pm.evaluation.identity.targets import load_targets
from id3pm.evaluation.judges import Judge, StageJudge
from id3pm.face.stage import FaceStage
from id3pm.formats.bundle import CONFIG_FILE, load_weights, read_bundle
from id3pm.formats.picture_files import named_pictures
from id3pm.training import checkpoint
from id3pm.training.preview import generate
from id3pm.unet.model import UNet, load_unet

SAMPLING = SamplingOptions(sampler="ddim", eta=1.0, steps=10, spacing="logsnr", guidance_scale=2.0)
CHUNK = 16
FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)
FILE = click.Path(path_type=Path, dir_okay=False)
points_option = click.option("--points", type=FILE, default=Path("out/training_curve.json"))


def network(path: Path) -> tuple[UNet, DiffusionConfig, str, int]:
    """The network of a bundle or of a run's averaged weights: it, its noising process, FR model and images seen."""
    if (path / CONFIG_FILE).exists():
        bundle = read_bundle(path)
        card = bundle.training_card["base"]
        weights = load_weights(path, "base")
        unet, diffusion, model = load_unet(bundle.base, weights), bundle.base_diffusion, bundle.id_vector_model
    else:
        state = checkpoint.load(path)
        weights = {name: tensor.numpy() for name, tensor in state.ema.items()}
        unet, diffusion = load_unet(state.config.unet, weights), state.config.diffusion
        model = state.facts["data"]["description"]["id_vector_model"]
        started = state.facts.get("started_from", {})
        card = {"images_seen": state.step * state.config.batch_size, "started_from": started}
    return unet.eval(), diffusion, model, card["images_seen"] + card.get("started_from", {}).get("images_seen", 0)


def images_of(
    unet: UNet, diffusion: DiffusionConfig, vectors: NDArray[np.float32], seeds: Sequence[int]
) -> NDArray[np.uint8]:
    """One image for each of N ID vectors and seeds, uint8 [N, 64, 64, 3]."""

    def made(start: int) -> NDArray[np.uint8]:
        chunk = vectors[start : start + CHUNK]

        def conditions(rows: NDArray[np.intp], conditional: NDArray[np.bool_]) -> dict[str, torch.Tensor]:
            return {"identity": torch.from_numpy(np.where(conditional[:, None], chunk[rows], np.float32(0.0)))}

        return generate(unet, diffusion, SAMPLING, seeds[start : start + len(chunk)], conditions)

    return np.concatenate([made(start) for start in range(0, len(vectors), CHUNK)])


def similarity(judge: Judge, images: NDArray[np.uint8], pictures: NDArray[np.uint8], vectors: Any) -> dict[str, float]:
    """Mean similarity of each image to its person and to strangers, and the share without a face."""
    targets, made = (judge.embed(pictures) if judge.independent else vectors), judge.embed(images)
    center = np.nanmean(targets, axis=0) if judge.centred else np.float32(0.0)
    unit = [found / np.linalg.norm(found, axis=1, keepdims=True) for found in (made - center, targets - center)]
    cosines = unit[0] @ unit[1].T
    own = np.diag(cosines)
    return {
        "similarity": round(float(np.nanmean(own)), 4),
        "strangers": round(float(np.nanmean(cosines[~np.eye(len(own), dtype=bool)])), 4),
        "no_face": round(float(np.mean(~np.isfinite(own))), 4),
    }


@click.group()
def main() -> None:
    """Command line; see the module's text."""


@main.command()
@click.argument("paths", type=FOLDER, nargs=-1, required=True)
@click.option("--data", type=FOLDER, default=Path("data/demo"), help="Data set with held-out people.")
@click.option("--faces", type=FOLDER, default=Path("triton_repo/face_embedding/1/engine"))
@click.option("--people", type=click.IntRange(2), default=100)
@click.option("--photographs", type=FOLDER, help="Pictures of real people; every face counts as one person.")
@click.option("--seeds", type=click.IntRange(1), default=2, help="Images of each person of the photographs.")
@click.option("--threads", type=click.IntRange(1), default=1)
@points_option
def measure(
    paths: tuple[Path, ...],
    data: Path,
    faces: Path,
    people: int,
    photographs: Path | None,
    seeds: int,
    threads: int,
    points: Path,
) -> None:
    """Add a point for each bundle or run in PATHS."""
    torch.set_num_threads(threads)
    stage = FaceStage.load(faces, threads)
    judges: list[Judge] = [StageJudge(stage, ""), DlibJudge(stage, "")]
    known = json.loads(points.read_text(encoding="utf-8")) if points.exists() else []
    points.parent.mkdir(parents=True, exist_ok=True)
    real = None if photographs is None else people_of(named_pictures(photographs), stage)
    for path in paths:
        unet, diffusion, id_vector_model, seen = network(path)
        targets = load_targets(data, id_vector_model, people, 1)
        images = images_of(unet, diffusion, targets.vectors, range(people))
        found = {judge.name: similarity(judge, images, targets.images, targets.vectors) for judge in judges}
        known.append({"name": path.name, "images_seen": seen, "people": people, **found})
        if real is not None:
            made = likenesses(real, functools.partial(images_of, unet, diffusion), judges, seeds)
            known[-1]["photographs"] = {"people": len(real.names), "seeds": seeds, "means": summary(made)}
        files.write_json(points, known)
        click.echo(json.dumps(known[-1]))


@main.command()
@points_option
@click.option("--out", type=FILE, default=Path("out/training_curve.png"))
def draw(points: Path, out: Path) -> None:
    """Draw the points."""
    known = json.loads(points.read_text(encoding="utf-8"))
    figure = files.new_figure(7, 4.5)
    axes = figure.subplots()
    for judge, color in (("sface", "tab:blue"), ("dlib", "tab:orange")):
        for name in dict.fromkeys(point["name"] for point in known):
            line = sorted(
                (point["images_seen"], point[judge]["similarity"]) for point in known if point["name"] == name
            )
            axes.plot(*zip(*line, strict=True), marker="o", color=color, alpha=0.8)
            axes.annotate(name, line[-1], xytext=(4, 4), textcoords="offset points", fontsize=8)
        axes.plot([], [], color=color, label=judge)
    axes.set(xlabel="images seen in training", ylabel="similarity to held-out people, 10 steps, guidance 2")
    axes.legend()
    files.save_figure(out, figure)
    click.echo(f"{out}")


if __name__ == "__main__":
    main()
