"""Training of Vec2Face: first the student of the black box, then the generator with its help."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from id3pm.evaluation.baselines.trainer import Pairs, channels_last
from id3pm.evaluation.baselines.vec2face import Discriminator, Generator, Student, metric_loss

STUDENT_RATE = 1e-3
GENERATOR_RATE, BETAS = 4e-4, (0.5, 0.999)
IDENTITY_WEIGHT, METRIC_WEIGHT, ADVERSARIAL_WEIGHT = 1.0, 10.0, 0.05


class StudentTraining:
    """Distillation: cosine of the student's vector and the stored one, which the black box gave.

    Args:
        student: What is trained, in place.
        pairs: Pictures and ID vectors.
        steps: Of the whole run: the learning rate falls to zero along half a cosine.
    """

    def __init__(self, student: Student, pairs: Pairs, steps: int) -> None:
        self._student, self._pairs, self._steps = student.train(), pairs, steps
        channels_last(student)
        self._optimizer = torch.optim.Adam(student.parameters(), STUDENT_RATE)

    def step(self, step: int) -> Mapping[str, float]:
        """See `Trainable.step`."""
        for group in self._optimizer.param_groups:
            group["lr"] = STUDENT_RATE * (1.0 + torch.cos(torch.tensor(torch.pi * step / self._steps)).item()) / 2.0
        images, vectors = self._pairs.at(step)
        loss = 1.0 - F.cosine_similarity(self._student(images), vectors).mean()
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        return {"cosine": 1.0 - loss.item()}

    def state(self) -> dict[str, Any]:
        """See `Trainable.state`."""
        return {"student": self._student.state_dict(), "optimizer": self._optimizer.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Trainable.restore`."""
        self._student.load_state_dict(state["student"])
        self._optimizer.load_state_dict(state["optimizer"])


class GeneratorTraining:
    """Adversarial (hinge), identity and metric loss.

    Args:
        generator: What is trained, in place.
        discriminator: Its opponent.
        student: Gives ID vectors with gradients; stays as it is.
        pairs: Pictures and ID vectors.
    """

    def __init__(self, generator: Generator, discriminator: Discriminator, student: Student, pairs: Pairs) -> None:
        self._networks: dict[str, nn.Module] = {"generator": generator.train(), "discriminator": discriminator.train()}
        for network in self._networks.values():
            channels_last(network)
        self._generator, self._discriminator = generator, discriminator
        self._student = student.eval().requires_grad_(False)
        self._pairs = pairs
        self._optimizers = {
            name: torch.optim.Adam(network.parameters(), GENERATOR_RATE, BETAS)
            for name, network in self._networks.items()
        }

    def step(self, step: int) -> Mapping[str, float]:
        """See `Trainable.step`."""
        images, vectors = self._pairs.at(step)
        made = self._generator(vectors)
        real, fake = self._discriminator(images), self._discriminator(made.detach())
        opponent = F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean()
        self._update("discriminator", opponent)
        self._discriminator.requires_grad_(False)
        adversarial = -self._discriminator(made).mean()
        self._discriminator.requires_grad_(True)
        identity = 1.0 - F.cosine_similarity(self._student(made), vectors).mean()
        metric = metric_loss(made, images, vectors)
        total = METRIC_WEIGHT * metric + IDENTITY_WEIGHT * identity + ADVERSARIAL_WEIGHT * adversarial
        self._update("generator", total)
        return {"metric": metric.item(), "identity": identity.item(), "opponent": opponent.item()}

    def _update(self, name: str, loss: torch.Tensor) -> None:
        self._optimizers[name].zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizers[name].step()

    def state(self) -> dict[str, Any]:
        """See `Trainable.state`."""
        return {
            "networks": {name: network.state_dict() for name, network in self._networks.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self._optimizers.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `Trainable.restore`."""
        for name, network in self._networks.items():
            network.load_state_dict(state["networks"][name])
            self._optimizers[name].load_state_dict(state["optimizers"][name])
