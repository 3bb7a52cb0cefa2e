"""Who is measured: each samples the same number of guided images with the same number of ancestral steps.

A contender is built in a process of its own (`workers.py`); `sample` runs the whole loop once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from id3pm.bundle import load_weights, read_bundle
from id3pm.config import SamplingOptions, UNetConfig
from id3pm.diffusion.noise import STAGE_BASE, noise
from id3pm.diffusion.samplers import plan
from id3pm.diffusion.schedule import respaced_schedule
from id3pm.engines.base import Engine, load_engine
from id3pm.engines.inputs import EngineInputs
from id3pm.engines.manifest import read_manifest
from id3pm.pipeline import Pipeline
from id3pm.sampling.batch import Row, RowBatch
from id3pm.sampling.request import SampleRequest, validated
from id3pm.unet.model import load_unet

GUIDANCE_SCALE = 2.0  # the paper's, as all options below
PERCENTILE = 0.99


class Timing(NamedTuple):
    """Seconds of a whole loop, and of the network's evaluations in it."""

    seconds: float
    unet_seconds: float


class Contender(Protocol):
    """One way of sampling."""

    def sample(self) -> Timing:
        """Samples all images once."""
        ...


class Reference:
    """Eager PyTorch, fp32, one loop per batch: the way users of guided-diffusion sample with guidance.

    Two forward passes a step (with and without the condition) and schedule tables looked up per step, in the structure
    of guided-diffusion's `p_sample_loop`; `compiled` gives the network to torch.compile first.
    """

    def __init__(self, bundle: str, images: int, steps: int, compiled: bool = False) -> None:
        description = read_bundle(Path(bundle))
        self.config, self._steps, self._images = description.base, steps, images
        self._schedule = respaced_schedule(description.base_diffusion, steps)
        self._unet: Any = load_unet(self.config, load_weights(Path(bundle), "base")).requires_grad_(False)
        if compiled:
            self._unet = torch.compile(self._unet)
        self._identity = torch.from_numpy(identities(self.config, images))
        self._unet_seconds = 0.0

    def sample(self) -> Timing:
        """Samples all images once, with PyTorch's own noise."""
        self._unet_seconds = 0.0
        start = time.perf_counter()
        shape = (self._images, 3, self.config.image_size, self.config.image_size)
        self.loop(lambda _: torch.randn(shape))
        return Timing(time.perf_counter() - start, self._unet_seconds)

    def images(self) -> NDArray[np.float32]:
        """Samples [N, 3, S, S] with the noise of the seeds 0 to N - 1, as `Ours.images` does."""
        shape = (3, self.config.image_size, self.config.image_size)
        seeds = range(self._images)
        draws = lambda number: torch.from_numpy(  # noqa: E731
            np.stack([noise(seed, STAGE_BASE, number, shape) for seed in seeds])
        )
        images: NDArray[np.float32] = self.loop(draws).numpy()
        return images

    def loop(self, draw: Callable[[int], torch.Tensor]) -> torch.Tensor:
        """Images [N, 3, S, S]; `draw(k)` gives the noise [N, 3, S, S] of x_T (k = 0) and of step k."""
        with torch.inference_mode():
            x = draw(0)
            for number, index in enumerate(reversed(range(self._steps)), start=1):
                x = self._step(x, index, draw(number) if index else None)
        return x

    def _step(self, x: torch.Tensor, index: int, noise_now: torch.Tensor | None) -> torch.Tensor:
        s = self._schedule
        timesteps = torch.full((len(x),), float(s.model_timesteps[index]))
        conditional = self._call(x, timesteps, self._identity)
        unconditional = self._call(x, timesteps, torch.zeros_like(self._identity))
        eps, variance = conditional.chunk(2, dim=1)
        null = unconditional[:, :3]
        eps = null + GUIDANCE_SCALE * (eps - null)
        x0 = (
            self._at(s.sqrt_recip_alphas_cumprod, index, x) * x
            - self._at(s.sqrt_recipm1_alphas_cumprod, index, x) * eps
        )
        limit = torch.quantile(x0.flatten(1).abs(), PERCENTILE, dim=1).clamp(min=1.0)[:, None, None, None]
        x0 = x0.clamp(-limit, limit) / limit
        mean = self._at(s.posterior_mean_coef1, index, x) * x0 + self._at(s.posterior_mean_coef2, index, x) * x
        if noise_now is None:
            return mean
        fraction = (variance + 1) / 2
        largest = self._at(np.log(s.betas), index, x)
        log_variance = fraction * largest + (1 - fraction) * self._at(s.posterior_log_variance_clipped, index, x)
        return mean + torch.exp(0.5 * log_variance) * noise_now

    def _call(self, x: torch.Tensor, timesteps: torch.Tensor, identity: torch.Tensor) -> torch.Tensor:
        start = time.perf_counter()
        output: torch.Tensor = self._unet(x, timesteps, identity=identity)
        self._unet_seconds += time.perf_counter() - start
        return output

    @staticmethod
    def _at(table: NDArray[np.float64], index: int, like: torch.Tensor) -> torch.Tensor:
        """A table's entry as a float32 tensor of the images' shape, for every step anew as the original does."""
        rows = torch.from_numpy(table.copy())[torch.full((len(like),), index)].float()
        return rows[:, None, None, None].expand(like.shape)


class Diffusers:
    """diffusers: a `UNet2DModel` of the same widths, `DDPMScheduler`, both halves of guidance in one batch.

    The network takes no ID vector (diffusers has none such), so both halves are the same function.
    """

    def __init__(self, bundle: str, images: int, steps: int) -> None:
        from diffusers import DDPMScheduler

        config = read_bundle(Path(bundle)).base
        self._images, self._steps, self._size = images, steps, config.image_size
        self._unet = diffusers_unet(config)
        self._scheduler = DDPMScheduler(
            beta_schedule="squaredcos_cap_v2", variance_type="learned_range", thresholding=True,
            dynamic_thresholding_ratio=PERCENTILE,
        )  # fmt: skip

    def sample(self) -> Timing:
        """Samples all images once."""
        start, unet_seconds = time.perf_counter(), 0.0
        self._scheduler.set_timesteps(self._steps)
        with torch.inference_mode():
            x = torch.randn(self._images, 3, self._size, self._size)
            for timestep in self._scheduler.timesteps:
                before = time.perf_counter()
                both = self._unet(torch.cat([x, x]), timestep).sample
                unet_seconds += time.perf_counter() - before
                conditional, unconditional = both.chunk(2)
                eps, variance = conditional.split(3, dim=1)
                null = unconditional[:, :3]
                eps = null + GUIDANCE_SCALE * (eps - null)
                x = self._scheduler.step(torch.cat([eps, variance], dim=1), timestep, x).prev_sample
        return Timing(time.perf_counter() - start, unet_seconds)


def diffusers_unet(config: UNetConfig) -> Any:
    """Diffusers' network with the widths, depths and attention of `config`."""
    from diffusers import UNet2DModel

    sizes = [config.image_size >> level for level in range(len(config.channel_mult))]
    attention = ["Attn" if size in config.attention_resolutions else "" for size in sizes]
    return UNet2DModel(
        sample_size=config.image_size,
        in_channels=3,
        out_channels=config.out_channels,
        layers_per_block=config.num_res_blocks,
        block_out_channels=[int(mult * config.num_channels) for mult in config.channel_mult],
        down_block_types=[f"{kind}DownBlock2D" for kind in attention],
        up_block_types=[f"{kind}UpBlock2D" for kind in reversed(attention)],
        downsample_type="resnet",
        upsample_type="resnet",
        attention_head_dim=config.num_head_channels or config.num_channels // config.num_heads,
        norm_num_groups=config.norm_groups,
        resnet_time_scale_shift="scale_shift",
    ).eval()


class Ours:
    """One of our engines under the step scheduler's batch."""

    def __init__(self, engine: str, images: int, steps: int) -> None:
        manifest = read_manifest(Path(engine))
        self._engine = _Timed(load_engine(Path(engine)))
        options = SamplingOptions(steps=steps, guidance_scale=GUIDANCE_SCALE, dynamic_threshold=PERCENTILE)
        self._plan = plan(manifest.diffusion, options, manifest.unet.learn_sigma)
        vectors = identities(manifest.unet, images)
        self._requests = [
            validated(SampleRequest(id=str(i), seed=i, options=options, identity=vectors[i]), manifest.unet)
            for i in range(images)
        ]

    def sample(self) -> Timing:
        """Samples all images once."""
        self._engine.seconds = 0.0
        start = time.perf_counter()
        self.images()
        return Timing(time.perf_counter() - start, self._engine.seconds)

    def images(self) -> NDArray[np.float32]:
        """Samples [N, 3, S, S] with the seeds 0 to N - 1."""
        batch = RowBatch(self._engine, STAGE_BASE)
        for number, request in enumerate(self._requests):
            rank = (0, 0.0, number)
            batch.add(Row(request=request, plan=self._plan, on_done=lambda _: None, rank=rank, submitted=0.0))
        done: list[Any] = []
        while batch.rows:
            done += batch.step()
        return np.stack([outcome.image for _, outcome in done])


class _Timed:
    """An engine that adds up the time of its calls."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.config, self.max_batch, self.description = engine.config, engine.max_batch, engine.description
        self.seconds = 0.0

    def run(self, inputs: EngineInputs) -> NDArray[np.float32]:
        start = time.perf_counter()
        output = self._engine.run(inputs)
        self.seconds += time.perf_counter() - start
        return output

    def close(self) -> None:
        self._engine.close()


class Cascade:
    """Both stages in process, as the server runs them; see `id3pm.pipeline`."""

    def __init__(self, repository: str, images: int, steps: int) -> None:
        self._pipeline = Pipeline.load(repository)
        self._vector = identities(self._pipeline.base_manifest.unet, 1)[0]
        self._images, self._steps = images, steps

    def sample(self) -> Timing:
        """All images at once, `steps` steps in both stages."""
        start = time.perf_counter()
        self._pipeline.generate(self._vector, range(self._images), steps=self._steps, sr_steps=self._steps)
        return Timing(time.perf_counter() - start, math.nan)

    def preset(self, name: str, images: int) -> float:
        """Seconds of `images` images with a preset's options in both stages."""
        start = time.perf_counter()
        self._pipeline.generate(self._vector, range(images), preset=name)
        return time.perf_counter() - start


class Matmul:
    """The machine's measured peak: products of two float32 matrices of 2048 x 2048."""

    SIZE = 2048
    FLOPS = 2 * SIZE**3

    def __init__(self) -> None:
        self._a, self._b = torch.rand(self.SIZE, self.SIZE), torch.rand(self.SIZE, self.SIZE)

    def sample(self) -> Timing:
        """The faster of three products: a peak, so interruptions do not belong to it."""
        times = []
        for _ in range(3):
            start = time.perf_counter()
            torch.mm(self._a, self._b)
            times.append(time.perf_counter() - start)
        return Timing(min(times), min(times))


def identities(config: UNetConfig, images: int) -> NDArray[np.float32]:
    """ID vectors [N, D]."""
    assert config.identity_dim is not None
    return np.random.default_rng(0).standard_normal((images, config.identity_dim), dtype=np.float32)
