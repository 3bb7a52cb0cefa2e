"""Previews of a run: samples of the averaged network, and the loss curve."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from id3pm.config import DiffusionConfig, SamplingOptions
from id3pm.diffusion.noise import STAGE_BASE, STAGE_SR, noise
from id3pm.diffusion.plans import plan
from id3pm.diffusion.samplers import sample
from id3pm.formats import datasets as shards
from id3pm.formats.images import area_reduce, encode_png, to_chw, to_uint8
from id3pm.training.history import HISTORY_FILE
from id3pm.training.loop import Trainer
from id3pm.training.presets import TrainConfig
from id3pm.unet.model import UNet

PREVIEW = SamplingOptions(sampler="ddim", eta=1.0, steps=20)
SR_PREVIEW = SamplingOptions(sampler="dpmpp_2m", steps=8, guidance_scale=1.0, dynamic_threshold=0.0)
SEEDS = 2
Rows = NDArray[np.intp]
ConditionFn = Callable[[Rows, NDArray[np.bool_]], dict[str, torch.Tensor]]


@torch.inference_mode()
def generate(
    unet: UNet,
    diffusion: DiffusionConfig,
    options: SamplingOptions,
    seeds: Sequence[int],
    conditions: ConditionFn,
) -> NDArray[np.uint8]:
    """Images by the package's reference loop, uint8 [N, S, S, 3].

    Args:
        unet: The network, in evaluation mode.
        diffusion: Its noising process.
        options: The same for all images.
        seeds: One per image (seed contract of `id3pm.diffusion.noise`).
        conditions: The U-Net's keyword arguments for rows (image numbers) and whether each is conditional.
    """
    stage = STAGE_BASE if unet.config.low_res_size is None else STAGE_SR
    shape = (3, unet.config.image_size, unet.config.image_size)
    device = next(unet.parameters()).device

    def model(
        x: NDArray[np.float32], timesteps: NDArray[np.float32], rows: Rows, conditional: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        given = {name: value.to(device) for name, value in conditions(rows, conditional).items()}
        output = unet(torch.from_numpy(x).to(device), torch.from_numpy(timesteps).to(device), **given)
        result: NDArray[np.float32] = output.float().cpu().numpy()
        return result

    rows = np.arange(len(seeds))
    low_res = conditions(rows, rows >= 0).get("low_res")
    x = sample(
        model,
        np.stack([noise(seed, stage, 0, shape) for seed in seeds]),
        [plan(diffusion, options, unet.config.learn_sigma)] * len(seeds),
        lambda row, draw: noise(seeds[row], stage, draw, shape),
        None if low_res is None else low_res.cpu().numpy(),
    )
    pixels: NDArray[np.uint8] = to_uint8(x)
    return pixels


def base_grid(unet: UNet, config: TrainConfig, targets: dict[str, NDArray[np.generic]]) -> NDArray[np.uint8]:
    """One column per held-out face: the face itself, then `SEEDS` images of its identity (guidance 2)."""
    count = len(targets["images"])
    vectors = np.tile(targets["vectors"].astype(np.float32), (SEEDS, 1))

    def conditions(rows: Rows, conditional: NDArray[np.bool_]) -> dict[str, torch.Tensor]:
        return {"identity": torch.from_numpy(np.where(conditional[:, None], vectors[rows], np.float32(0.0)))}

    seeds = [seed for seed in range(SEEDS) for _ in range(count)]
    images = generate(unet, config.diffusion, PREVIEW, seeds, conditions)
    return tile([targets["images"].astype(np.uint8), *images.reshape(SEEDS, count, *images.shape[1:])])


def sr_grid(unet: UNet, config: TrainConfig, high: NDArray[np.uint8], low: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """One column per image: its pixels enlarged, Lanczos, the network, and the original (black where there is none)."""
    size = unet.config.image_size
    inputs = torch.from_numpy(to_chw(low))

    def conditions(rows: Rows, conditional: NDArray[np.bool_]) -> dict[str, torch.Tensor]:
        return {"low_res": inputs[torch.from_numpy(rows)]}

    images = generate(unet, config.diffusion, SR_PREVIEW, range(len(low)), conditions)
    nearest, lanczos = (
        np.stack([np.asarray(Image.fromarray(image).resize((size, size), how)) for image in low])
        for how in (Image.Resampling.NEAREST, Image.Resampling.LANCZOS)
    )
    return tile([nearest, lanczos, images, high])


def tile(rows: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Rows of images [N, S, S, 3] as one picture."""
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0)


def save_picture(file: Path, image: NDArray[np.uint8], scale: int) -> None:
    """A PNG, enlarged `scale` times so that 64 px faces can be judged; its metadata say that it was generated."""
    picture = Image.fromarray(image)
    picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.BICUBIC)
    file.write_bytes(encode_png(np.asarray(picture), generated=True))


def loss_curve(history: Path, file: Path) -> None:
    """The losses of `history.jsonl` over the steps, on a logarithmic scale."""
    import matplotlib.figure  # slow to import, and only needed here

    lines = [json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()]
    figure = matplotlib.figure.Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for name in ("mse", "vb"):
        points = [(line["step"], line[name]) for line in lines if name in line]
        if points:
            axes.plot(*zip(*points, strict=True), label={"mse": "L_simple", "vb": "L_vlb (bits/dim x T/1000)"}[name])
    axes.set(xlabel="optimiser steps", yscale="log", title="training loss")
    axes.legend()
    figure.savefig(file, dpi=120)


def at_full_size(unet: UNet, config: TrainConfig) -> UNet:
    """A copy of a network that was trained on crops, at the size it will be deployed with."""
    full = UNet(config.unet)
    full.load_state_dict({name: tensor.cpu() for name, tensor in unet.state_dict().items()})
    return full.eval()


class RunPictures:
    """Sample grid and loss curve of a run, drawn by the first process.

    Args:
        trainer: The run.
        data: Folder of a data set with held-out faces.
        out: Folder of the pictures.
        faces: Held-out faces in the sample grid.
    """

    def __init__(self, trainer: Trainer, data: Path, out: Path, faces: int) -> None:
        held_out = shards.load_mapped(data, "test")
        self._targets = {name: held_out[name][:faces] for name in ("images", "vectors")}
        self._config = trainer.config
        self._out = out
        self._trainer = trainer

    def __call__(self) -> None:
        """Draws both as the run is now; called in every process."""
        if not self._trainer.is_main_process:
            return
        with self._trainer.averaged() as unet:
            if self._config.stage == "base":
                grid = base_grid(unet, self._config, self._targets)
                save_picture(self._out / f"samples_{self._trainer.step:07d}.png", grid, scale=2)
            else:
                self._super_resolution(unet)
        if (self._out / HISTORY_FILE).exists():
            loss_curve(self._out / HISTORY_FILE, self._out / "loss.png")

    def _super_resolution(self, unet: UNet) -> None:
        config, step = self._config, self._trainer.step
        size = config.train_size
        high = np.ascontiguousarray(self._targets["images"][:, :size, :size])
        factor = size // (config.train_unet.low_res_size or 1)
        grid = sr_grid(unet, config, high, area_reduce(high, factor))
        save_picture(self._out / f"samples_{step:07d}.png", grid, scale=2)
        if config.train_unet != config.unet:
            low = self._targets["images"][:4]
            if low.shape[1] != config.unet.low_res_size:
                return
            full = at_full_size(unet, config)
            black = np.zeros((len(low), config.unet.image_size, config.unet.image_size, 3), np.uint8)
            grid = sr_grid(full, config, black, low)
            save_picture(self._out / f"full_size_{step:07d}.png", grid[: 3 * config.unet.image_size], scale=1)
