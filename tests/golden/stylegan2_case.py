"""A tiny StyleGAN2 with made-up weights, by the names of `stylegan2-pytorch`: 16 px, two mapping layers."""

from __future__ import annotations

import numpy as np
import torch

SIZE, LATENT, MAPPING_LAYERS = 16, 8, 2
CHANNELS = {4: 6, 8: 5, 16: 4}


def case_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes, in order."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(1, MAPPING_LAYERS + 1):
        shapes |= {f"style.{layer}.weight": (LATENT, LATENT), f"style.{layer}.bias": (LATENT,)}
    shapes["input.input"] = (1, CHANNELS[4], 4, 4)
    shapes |= _layer("conv1", CHANNELS[4], CHANNELS[4]) | _to_rgb("to_rgb1", CHANNELS[4])
    noises = [4]
    for level, side in enumerate((8, 16)):
        shapes |= _layer(f"convs.{2 * level}", CHANNELS[side // 2], CHANNELS[side])
        shapes |= _layer(f"convs.{2 * level + 1}", CHANNELS[side], CHANNELS[side])
        shapes |= _to_rgb(f"to_rgbs.{level}", CHANNELS[side])
        noises += [side, side]
    return shapes | {f"noises.noise_{number}": (1, 1, side, side) for number, side in enumerate(noises)}


def _layer(name: str, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}.conv.weight": (1, outputs, inputs, 3, 3),
        f"{name}.conv.modulation.weight": (inputs, LATENT),
        f"{name}.conv.modulation.bias": (inputs,),
        f"{name}.noise.weight": (1,),
        f"{name}.activate.bias": (outputs,),
    }


def _to_rgb(name: str, inputs: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}.conv.weight": (1, 3, inputs, 1, 1),
        f"{name}.conv.modulation.weight": (inputs, LATENT),
        f"{name}.conv.modulation.bias": (inputs,),
        f"{name}.bias": (1, 3, 1, 1),
    }


def case_weights() -> dict[str, torch.Tensor]:
    """RandomState's stream is frozen by numpy, so the numbers are the same everywhere."""
    random = np.random.RandomState(5)
    return {name: torch.from_numpy(random.randn(*shape).astype(np.float32)) for name, shape in case_shapes().items()}


def case_latents() -> torch.Tensor:
    """Two latents."""
    return torch.from_numpy(np.random.RandomState(6).randn(2, LATENT).astype(np.float32))
