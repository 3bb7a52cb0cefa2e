"""The peers: PyTorch as guided-diffusion's users run it, compiled, in bfloat16; and diffusers.

Each samples the same number of guided images with the same number of ancestral steps; `sample` runs the loop once.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from contest import GUIDANCE_SCALE, PERCENTILE, Timing, identities
from id3pm.config import UNetConfig
from id3pm.diffusion.noise import STAGE_BASE, noise
from id3pm.diffusion.schedule import respaced_schedule
from id3pm.formats.bundle import load_weights, read_bundle
from id3pm.unet.model import load_unet


class Reference:
    """Eager PyTorch, one loop per batch: the way users of guided-diffusion sample with guidance.

    Two forward passes a step (with and without the condition) and schedule tables looked up per step, in the structure
    of guided-diffusion's `p_sample_loop`.

    Args:
        bundle: Folder of the bundle.
        images: How many.
        steps: Of the loop.
        compiled: Give the network to torch.compile first.
        autocast: Run the network under bfloat16 autocast instead of in fp32.
    """

    def __init__(self, bundle: str, images: int, steps: int, compiled: bool = False, autocast: bool = False) -> None:
        description = read_bundle(Path(bundle))
        self.config, self._steps, self._images = description.base, steps, images
        self._schedule = respaced_schedule(description.base_diffusion, steps)
        self._unet: Any = load_unet(self.config, load_weights(Path(bundle), "base")).requires_grad_(False)
        if compiled:
            self._unet = torch.compile(self._unet)
        self._identity = torch.from_numpy(identities(self.config, images))
        self._autocast = torch.autocast("cpu", torch.bfloat16, enabled=autocast)
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
        with self._autocast:
            output: torch.Tensor = self._unet(x, timesteps, identity=identity).float()
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
