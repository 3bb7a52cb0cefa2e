"""DeepCache: the deep half of the U-Net computed at every second or third step alone, speed against error.

    python benchmarks/feature_caching.py --data data/demo

Ma et al. (2023), "DeepCache": features of the deep levels change slowly along a trajectory, so most steps could reuse
those of an earlier step and compute the finest level alone. Samples the same people from the same noise with and
without, in PyTorch, and compares work, similarity to the target and agreement with the plain trajectory. What has been
generated is kept in --out and not made again.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import report
from id3pm.config import SamplingOptions, UNetConfig, to_json
from id3pm.diffusion.noise import STAGE_BASE
from id3pm.diffusion.samplers import plan
from id3pm.engines.inputs import EngineInputs, FloatArray, input_shapes
from id3pm.evaluation.cache import Cache
from id3pm.evaluation.identity.targets import View, load_targets
from id3pm.evaluation.judges import StageJudge
from id3pm.face.manifest import read_manifest
from id3pm.face.stage import FaceStage
from id3pm.formats.bundle import load_weights, read_bundle, weights_hash
from id3pm.formats.images import to_uint8
from id3pm.sampling.batch import RowBatch
from id3pm.sampling.presets import PRESETS
from id3pm.sampling.request import SampleRequest, validated
from id3pm.sampling.row import Row
from id3pm.unet.layers import timestep_embedding
from id3pm.unet.model import UNet, load_unet

CHUNK = 16  # images that are sampled together
console = Console(highlight=False, stderr=True)


class CachedUNet:
    """An `Engine` over the PyTorch network that computes its deep levels at every `every`-th call alone.

    All calls of one trajectory must hold the same rows in the same order; `restart` begins a new one.

    Args:
        unet: The network.
        every: 1 is the plain network.
        levels: Levels, finest first, that are computed at every call.
    """

    max_batch = 2 * CHUNK
    description = "torch with cached features"

    def __init__(self, unet: UNet, every: int, levels: int) -> None:
        self.config: UNetConfig = unet.config
        self._unet, self._every = unet, every
        self._shallow = levels * (self.config.num_res_blocks + 1)
        self.restart()

    def restart(self) -> None:
        """Forgets the features."""
        self._calls, self._deep = 0, torch.empty(0)

    def run(self, inputs: EngineInputs) -> FloatArray:
        """See `Engine.run`."""
        with torch.inference_mode():
            fresh = self._calls % self._every == 0
            self._calls += 1
            output: FloatArray = self.evaluate({k: torch.from_numpy(v) for k, v in inputs.items()}, fresh).numpy()
        return output

    def evaluate(self, inputs: dict[str, Tensor], fresh: bool) -> Tensor:
        """One evaluation: the whole network if `fresh`, else its shallow levels around what was kept."""
        unet = self._unet
        emb = unet.time_embed(timestep_embedding(inputs["timesteps"], self.config.num_channels))
        if unet.identity_embed is not None:
            emb = emb + unet.identity_embed(inputs["identity"])
        if unet.attribute_embed is not None:
            emb = emb + unet.attribute_embed(inputs["attributes"])
        blocks = len(unet.input_blocks) if fresh else self._shallow
        h, skips = inputs["x"], []
        for block in list(unet.input_blocks)[:blocks]:
            h = block(h, emb)
            skips.append(h)
        h = unet.middle_block(h, emb) if fresh else self._deep
        outputs: list[nn.Module] = list(unet.output_blocks)
        for number, block in enumerate(outputs[-blocks:], start=len(outputs) - blocks):
            if number == len(outputs) - self._shallow:
                self._deep = h
            h = block(torch.cat([h, skips.pop()], dim=1), emb)
        return unet.out(h)  # type: ignore[no-any-return]

    def flops(self, fresh: bool) -> int:
        """Operations of one call with one row."""
        inputs = {name: torch.zeros(shape) for name, shape in input_shapes(self.config, 1).items()}
        with torch.inference_mode():
            self.evaluate(inputs, fresh=True)
            with FlopCounterMode(display=False) as counter:
                self.evaluate(inputs, fresh)
        return int(counter.get_total_flops())

    def close(self) -> None:
        """Nothing to free."""


def sample(
    engine: CachedUNet, options: SamplingOptions, diffusion: Any, vectors: FloatArray, seeds: Sequence[int]
) -> FloatArray:
    """Images [N, 3, S, S] in [-1, 1] of these ID vectors and seeds."""
    engine.restart()
    batch = RowBatch(engine, STAGE_BASE)
    steps = plan(diffusion, options, engine.config.learn_sigma)
    for number, (vector, seed) in enumerate(zip(vectors, seeds, strict=True)):
        request = SampleRequest(id=str(number), seed=seed, options=options, identity=vector)
        batch.add(
            Row(
                request=validated(request, engine.config),
                plan=steps,
                on_done=lambda _: None,
                submitted=0.0,
            )
        )
    done: list[Any] = []
    while batch.rows:
        done += batch.collect(batch.step())
    return np.clip(np.stack([outcome.image for _, outcome in done]), -1.0, 1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """One row of the table.

    Attributes:
        preset: Whose options; the number of steps may differ.
        steps: Of the loop.
        every: The deep levels are computed at every so many steps.
        levels: Levels, finest first, that are computed at every step.
    """

    preset: str
    steps: int
    every: int = 1
    levels: int = 1


def work(unet: UNet, setting: Setting) -> float:
    """Operations of a trajectory, relative to the plain one of the same steps."""
    cached = CachedUNet(unet, setting.every, setting.levels)
    whole, shallow = cached.flops(fresh=True), cached.flops(fresh=False)
    fresh = math.ceil(setting.steps / setting.every)
    return (fresh * whole + (setting.steps - fresh) * shallow) / (setting.steps * whole)


def settings_of(presets: Sequence[str], unet: UNet) -> list[Setting]:
    """The plain trajectory of each preset first, and behind each way of caching a plain one of the same work."""
    settings = []
    for name in presets:
        steps = PRESETS[name].base.steps
        settings.append(Setting(preset=name, steps=steps))
        for every, levels in ((2, 1), (3, 1), (2, 2)):
            cached = Setting(preset=name, steps=steps, every=every, levels=levels)
            fewer = round(steps * work(unet, cached))
            settings += [cached, Setting(preset=name, steps=fewer)]
    return list(dict.fromkeys(settings))


@click.command(help=(__doc__ or "").split("\n\n")[0])
@click.option("--bundle", type=click.Path(path_type=Path), default=Path("bundles/demo"))
@click.option("--data", type=click.Path(path_type=Path), default=Path("data/demo"), help="From id3pm demo-dataset.")
@click.option("--repository", type=click.Path(path_type=Path), default=Path("triton_repo"), help="With face models.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/feature_caching"), show_default=True)
@click.option("--identities", type=click.IntRange(20), default=60, show_default=True)
@click.option("--presets", default="fast,balanced,paper", show_default=True)
@click.option("--docs", type=click.Path(path_type=Path, dir_okay=False), help="Page to put the table into as well.")
def main(
    bundle: Path, data: Path, repository: Path, out: Path, identities: int, presets: str, docs: Path | None
) -> None:
    """Command line; see the module's text."""
    description = read_bundle(bundle)
    unet = load_unet(description.base, load_weights(bundle, "base")).requires_grad_(False)
    targets = load_targets(data, description.id_vector_model, identities, 1)
    folder = repository / "face_embedding" / "1" / "engine"
    faces = read_manifest(folder)
    judge = StageJudge(FaceStage.load(folder), f"{faces.detector_sha256} {faces.encoder_sha256}")
    cache = Cache(out / "cache")
    view = View(judge, targets, cache)
    rows, plain = [], (np.empty(0), np.empty(0))
    for setting in settings_of(presets.split(","), unet):
        preset = PRESETS[setting.preset].base
        options = dataclasses.replace(preset, steps=setting.steps)
        key = {"bundle": weights_hash(bundle, "base"), **to_json(setting), **to_json(options), "people": identities}
        engine = CachedUNet(unet, setting.every, setting.levels)
        images = cache.array(key, lambda e=engine, o=options: all_images(e, o, description.base_diffusion, targets))  # type: ignore[misc]
        vectors = view.embed(to_uint8(images), key)
        is_plain = setting == Setting(preset=setting.preset, steps=preset.steps)
        if is_plain:
            plain = (images, vectors)
        found = view.measure(vectors, np.arange(identities))
        rows.append(
            [
                f"`{setting.preset}`, {setting.steps} steps",
                "" if setting.every == 1 else f"every {setting.every} steps, {setting.levels} level(s) afresh",
                f"{preset.steps / (setting.steps * work(unet, setting)):.2f}x",
                f"{found.similarity.mean:.3f}",
                f"{np.nanmean(view.agreement(vectors, plain[1])):.3f}",
                "" if is_plain else f"{psnr(images, plain[0]):.1f}",
                f"{found.no_face:.1%}",
            ]
        )
        console.print(" | ".join(rows[-1]))
    header = ["preset", "deep levels", "less work", f"similarity ({judge.name})", "agreement", "PSNR, dB", "no face"]
    lines = [f"Bundle {description.name}, {identities} people held out from training.", "", *report.table(header, rows)]
    (out / "feature_caching.md").write_text("\n".join(lines) + "\n")
    if docs is not None:
        report.insert(docs, "feature caching", lines)
    click.echo("\n".join(lines))


def all_images(engine: CachedUNet, options: SamplingOptions, diffusion: Any, targets: Any) -> FloatArray:
    """One image of every target, a chunk at a time."""
    seeds = targets.seeds[:, 0].tolist()
    return np.concatenate(
        [
            sample(engine, options, diffusion, targets.vectors[start : start + CHUNK], seeds[start : start + CHUNK])
            for start in range(0, len(seeds), CHUNK)
        ]
    )


def psnr(images: NDArray[Any], plain: NDArray[Any]) -> float:
    """Mean over images in [-1, 1] of the PSNR, in dB."""
    squared = np.mean((images.astype(np.float64) - plain) ** 2, axis=(1, 2, 3))
    return float(np.mean(10 * np.log10(4 / squared)))


if __name__ == "__main__":
    main()
