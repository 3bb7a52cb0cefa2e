"""The published FR networks with one block per level, as checkpoints in the forms in which the real ones come.

Same code, same layers, a fraction of the time. The full-size networks are in test_face_networks.py and, through the
whole export, among the slow tests.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from id3pm.export.face.networks.adaface import AdaFaceBackbone
from id3pm.export.face.networks.facenet import InceptionResnetV1
from id3pm.export.face.networks.lresnet100 import LResNet100
from id3pm.export.face.networks.occluded import OccludedFaceNet
from tests.golden.face_network_cases import made_up_state

THIN: Mapping[str, Callable[[], nn.Module]] = {
    "facenet": lambda: InceptionResnetV1((1, 1, 1)),
    "adaface": lambda: AdaFaceBackbone((1, 1, 1, 1)),
    "arcface-razzhigaev": lambda: LResNet100((1, 1, 1, 1)),
    "from": lambda: OccludedFaceNet((1, 1, 1, 1)),
}


def with_made_up_weights(kind: str, build: Callable[[str], nn.Module]) -> nn.Module:
    """The network that `build` makes, in evaluation mode, with the weights that the golden values are computed with."""
    with torch.device("meta"):
        network = build(kind)
    empty = network.state_dict()
    state = made_up_state(kind, {key: tuple(tensor.shape) for key, tensor in empty.items()})
    tensors = {key: torch.from_numpy(array).to(empty[key].dtype) for key, array in state.items()}
    network.load_state_dict(tensors, assign=True)
    return network.eval()


@functools.cache
def thin_network(kind: str) -> nn.Module:
    """A network with one block per level; not to be changed."""
    return with_made_up_weights(kind, lambda kind: THIN[kind]()).requires_grad_(False)


def write_checkpoint(kind: str, network: nn.Module, path: Path) -> Path:
    """Saves the network's weights as `kind`'s repository does."""
    state = network.state_dict()
    content: Any = state
    if kind == "facenet":  # the training head is in the file
        content = state | {"logits.weight": torch.zeros(8631, 2), "logits.bias": torch.zeros(8631)}
    if kind == "adaface":  # a Lightning checkpoint
        weights = {f"model.{key}": value for key, value in state.items()} | {"head.kernel": torch.zeros(4, 4)}
        content = {"epoch": 25, "state_dict": weights, "hyper_parameters": argparse.Namespace(arch="ir_50")}
    if kind == "arcface-razzhigaev":  # batch norms did not count their batches yet
        content = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    if kind == "from":
        optimizer = torch.optim.SGD([torch.zeros(3, requires_grad=True)], lr=0.1)
        content = {"epoch": 40, "perf": np.float64(0.99), "state_dict": state, "optimizer": optimizer.state_dict()}
    old = kind in ("facenet", "arcface-razzhigaev")  # published before PyTorch 1.6
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    return path
