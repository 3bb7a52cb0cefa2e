"""The networks that fit a checkpoint's names and shapes, and the fields in which they differ.

Heads and the order of q, k, v only rearrange one matrix; groups have no weights of their own; and a noising process has
none at all. So a wrong value gives another network without any error.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from id3pm.config import DiffusionConfig, UNetConfig
from id3pm.diffusion.schedule import betas
from id3pm.errors import ConfigError
from id3pm.unet.layers import AttentionBlock
from id3pm.unet.model import UNet

HEADS = (1, 2, 3, 4, 6, 8, 16)
HEAD_CHANNELS = (16, 32, 64, 128)
NORM_GROUPS = (32, 16, 8, 4)
DIFFUSION_STEPS = (1000, 4000)
SAME_TIMESTEP = 2.0
"""Two noising processes count as equal if their timesteps for the same noise differ by no more than this."""
LOGSNR_GRID = np.linspace(6.0, -6.0, 25)


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A network that the weights fit, with a noising process."""

    unet: UNetConfig
    diffusion: DiffusionConfig

    def left_open(self) -> dict[str, object]:
        """The fields that names and shapes of the weights do not determine, with their values here."""
        unet = self.unet
        heads = {"num_head_channels": unet.num_head_channels}
        if unet.num_head_channels is None:
            heads = {"num_heads": unet.num_heads}
            if unet.num_heads_upsample is not None:
                heads["num_heads_upsample"] = unet.num_heads_upsample
        sizes = {"image_size": unet.image_size}
        if unet.low_res_size is not None:
            sizes["low_res_size"] = unet.low_res_size
        return {
            **heads,
            "use_new_attention_order": unet.use_new_attention_order,
            "norm_groups": unet.norm_groups,
            **sizes,
            **dataclasses.asdict(self.diffusion),
        }

    def unlike(self, other: Candidate) -> str:
        """The fields that differ from another network, as `name=value, name=value`."""
        others = other.left_open()
        return named({name: value for name, value in self.left_open().items() if others.get(name) != value})

    def same_network(self, other: Candidate) -> bool:
        """Whether both compute the same from the same noisy image, whatever the weights."""
        heads = attention_heads(self.unet)
        order = self.unet.use_new_attention_order == other.unet.use_new_attention_order or max(heads) == 1
        return (
            heads == attention_heads(other.unet)
            and order
            and self.unet.norm_groups == other.unet.norm_groups
            and bool(np.allclose(_told(self.diffusion), _told(other.diffusion), atol=SAME_TIMESTEP, rtol=0))
        )


def named(values: dict[str, object]) -> str:
    """`name=value, name=value`, as JSON writes the values."""
    words = {True: "true", False: "false", None: "null"}
    return ", ".join(
        f"{name}={words.get(value, value) if isinstance(value, bool) else value}" for name, value in values.items()
    )


@functools.lru_cache
def attention_heads(unet: UNetConfig) -> tuple[int, ...]:
    """Heads of every attention block.

    Raises:
        ConfigError: They do not divide its channels.
    """
    with torch.device("meta"):
        return tuple(block.heads for block in UNet(unet).modules() if isinstance(block, AttentionBlock))


def told_timesteps(diffusion: DiffusionConfig, logsnr: NDArray[np.float64]) -> NDArray[np.float64]:
    """Timesteps, interpolated, of images with these logarithms of the signal-to-noise ratio, [N]."""
    alphas_cumprod = np.cumprod(1.0 - betas(diffusion))
    noise = np.log1p(-alphas_cumprod) - np.log(alphas_cumprod)  # -logsnr, ascending with t
    t = np.interp(-logsnr, noise, np.arange(diffusion.diffusion_steps))
    return t * (1000.0 / diffusion.diffusion_steps if diffusion.rescale_timesteps else 1.0)


@functools.lru_cache
def _told(diffusion: DiffusionConfig) -> NDArray[np.float64]:
    return told_timesteps(diffusion, LOGSNR_GRID)


def others(given: Candidate) -> list[Candidate]:
    """Networks of the same shapes, each with one thing changed: attention, groups of norms, or the noising process."""
    found: list[Candidate] = []
    for candidate in _variants(given):
        try:
            known = any(candidate.same_network(other) for other in (given, *found))
        except ConfigError:  # heads that do not divide the channels
            continue
        if not known:
            found.append(candidate)
    return found


def attention_and_groups(given: Candidate) -> list[Candidate]:
    """All combinations of attention and groups of norms of the same shapes but the given one."""
    found: list[Candidate] = []
    for first in (given, *_attentions(given)):
        for candidate in (first, *_groups(first)):
            try:
                if not any(candidate.same_network(other) for other in (given, *found)):
                    found.append(candidate)
            except ConfigError:
                continue
    return found


def _variants(given: Candidate) -> Iterator[Candidate]:
    yield from _attentions(given)
    yield from _groups(given)
    yield from _processes(given)


def _attentions(given: Candidate) -> Iterator[Candidate]:
    unet = given.unet
    counts = [unet]
    counts += [dataclasses.replace(unet, num_heads=n, num_head_channels=None, num_heads_upsample=None) for n in HEADS]
    counts += [dataclasses.replace(unet, num_heads=1, num_head_channels=n) for n in HEAD_CHANNELS]
    for config in counts:
        for new_order in (False, True):
            yield Candidate(dataclasses.replace(config, use_new_attention_order=new_order), given.diffusion)


def _groups(given: Candidate) -> Iterator[Candidate]:
    for groups in NORM_GROUPS:
        try:
            yield Candidate(dataclasses.replace(given.unet, norm_groups=groups), given.diffusion)
        except ConfigError:  # groups that do not divide the channels
            continue


def _processes(given: Candidate) -> Iterator[Candidate]:
    for schedule in ("cosine", "linear"):
        for steps in dict.fromkeys((given.diffusion.diffusion_steps, *DIFFUSION_STEPS)):
            for rescale in (False, True):
                how = {"diffusion_steps": steps, "noise_schedule": schedule, "rescale_timesteps": rescale}
                yield Candidate(given.unet, dataclasses.replace(given.diffusion, **how))  # type: ignore[arg-type]
