"""Training of NbNet: pixel loss, or perceptual loss where the user brings VGG-19."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from id3pm.evaluation.baselines.nbnet import NbNet
from id3pm.evaluation.baselines.trainer import Pairs, channels_last
from id3pm.evaluation.baselines.vgg import Vgg19

LEARNING_RATE, BETAS = 2e-4, (0.5, 0.999)
DECAY, DECAY_STEPS = 0.94, 5000
"""The learning rate is multiplied by `DECAY` every so many steps."""


class NbNetTraining:
    """See `id3pm.evaluation.baselines.trainer.Trainable`.

    Args:
        network: What is trained, in place.
        pairs: Pictures and ID vectors.
        learning_rate: At the start.
        vgg: Its maps are compared instead of pixels; `None` for the pixel loss.
    """

    def __init__(self, network: NbNet, pairs: Pairs, learning_rate: float, vgg: Vgg19 | None = None) -> None:
        self._network, self._pairs, self._vgg = network.train(), pairs, vgg
        channels_last(network)
        self._learning_rate = learning_rate
        self._optimizer = torch.optim.Adam(network.parameters(), learning_rate, BETAS)

    def step(self, step: int) -> Mapping[str, float]:
        """See `Trainable.step`."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate * DECAY ** (step // DECAY_STEPS)
        images, vectors = self._pairs.at(step)
        loss = self._loss(self._network(vectors), images)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return {"loss": loss.item()}

    def _loss(self, made: Tensor, images: Tensor) -> Tensor:
        if self._vgg is None:
            return (made - images).square().mean()
        with torch.no_grad():
            wanted = self._vgg.maps(images)
        return (self._vgg.maps(made) - wanted).square().mean()

    def state(self) -> dict[str, Any]:
        """See `Trainable.state`."""
        return {"network": self._network.state_dict(), "optimizer": self._optimizer.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Trainable.restore`."""
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
