"""AdamW of a run: its parameters and learning rate, the kernels that update them, and its state from a checkpoint."""

from __future__ import annotations

from typing import Any

import torch

from id3pm.training.presets import TrainConfig
from id3pm.unet.model import UNet

KERNELS = ("fused", "foreach")
"""Settings of PyTorch's optimisers that change how a step is computed, and its result but for rounding not."""


def new_optimizer(unet: UNet, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with weight decay 0, as the paper's code base has it.

    In two groups where the attributes have a learning rate of their own.
    """
    fused = True if config.fused_adamw else None  # `None`: PyTorch's own choice
    return torch.optim.AdamW(_groups(unet, config), lr=config.learning_rate, weight_decay=0.0, fused=fused)


def learning_rate(config: TrainConfig, step: int) -> float:
    """The learning rate of step 0, 1, ...: a linear rise over `warmup_steps`, then constant (as in the paper)."""
    return config.learning_rate * min(1.0, (step + 1) / max(config.warmup_steps, 1))


def load_optimizer(optimizer: Any, state: dict[str, Any]) -> None:
    """Takes a saved state, and goes on with this run's own kernels and memory format.

    Args:
        optimizer: An AdamW, or accelerate's wrapper of one.
        state: A `state_dict`, perhaps of a run with other kernels: it would bring them along. And a fused kernel reads
            weights and moments in the order in which they lie in memory, so each moment is stored as its weight is.
    """
    groups = optimizer.param_groups
    own = {name: groups[0][name] for name in KERNELS}
    parameters = [parameter for group in groups for parameter in group["params"]]
    moments = {
        number: {
            name: torch.empty_like(parameters[number], device=value.device).copy_(value) if value.ndim else value
            for name, value in of_parameter.items()
        }
        for number, of_parameter in state["state"].items()
    }
    saved = [{**group, **own} for group in state["param_groups"]]
    optimizer.load_state_dict({"state": moments, "param_groups": saved})


def _groups(unet: UNet, config: TrainConfig) -> list[dict[str, Any]]:
    if unet.attribute_embed is None or config.attribute_speed == 1.0:
        return [{"params": list(unet.parameters())}]
    named = list(unet.named_parameters())
    own = [parameter for name, parameter in named if name.startswith("attribute_embed.")]
    rest = [parameter for name, parameter in named if not name.startswith("attribute_embed.")]
    return [{"params": rest}, {"params": own, "speed": config.attribute_speed}]
