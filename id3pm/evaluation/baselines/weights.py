"""Weights of trained baselines: a safetensors file of fp16 tensors, with what it is in the file's metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from id3pm.errors import CheckpointError, InvalidInputError

FOLDER = Path("bundles/baselines")
METADATA = "id3pm"


def save_weights(file: Path, network: nn.Module, facts: Mapping[str, Any]) -> None:
    """Writes parameters as fp16; statistics of batch norms stay float32.

    Args:
        file: The file.
        network: What was trained.
        facts: What `load_facts` gives: `method`, `id_vector_model`, `identity_dim`, `network` (arguments of its class),
            and how it was trained.
    """
    tensors = {}
    for name, tensor in network.state_dict().items():
        statistics = name.endswith(("running_mean", "running_var"))
        kept = tensor.float() if statistics or not tensor.is_floating_point() else tensor.half()
        tensors[name] = kept.contiguous()
    partial = file.with_name(f".{file.name}.tmp")
    partial.write_bytes(save(tensors, {METADATA: json.dumps(dict(facts))}))
    partial.replace(file)


def load_facts(file: Path, method: str, id_vector_model: str | None = None) -> dict[str, Any]:
    """What a weights file says about itself.

    Args:
        file: From `save_weights`.
        method: Which method's weights are expected.
        id_vector_model: The FR model whose vectors are to be inverted; `None` takes any.

    Raises:
        CheckpointError: It is no such file.
        InvalidInputError: It is missing, or of another method or FR model.
    """
    if not file.exists():
        raise InvalidInputError(f"there are no weights {file}: train them with id3pm baseline train {method}")
    try:
        with safe_open(file, framework="pt") as opened:
            facts: dict[str, Any] = json.loads((opened.metadata() or {})[METADATA])
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"{file.name} is no weights file of a baseline: {error!r}") from error
    if facts.get("method") != method:
        raise InvalidInputError(f"{file.name} has weights of {facts.get('method')}: {method} needs its own")
    if id_vector_model not in (None, facts["id_vector_model"]):
        raise InvalidInputError(
            f"{file.name} inverts ID vectors of {facts['id_vector_model']}, not those of {id_vector_model}: train "
            f"{method} on a data set with them"
        )
    return facts


def load_weights(file: Path, network: nn.Module) -> None:
    """Fills a network from a file of `save_weights`, and puts it into evaluation mode.

    Raises:
        CheckpointError: Names or shapes differ.
    """
    with safe_open(file, framework="pt") as opened:
        state = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    try:
        network.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in state.items()})
    except RuntimeError as error:
        raise CheckpointError(f"{file.name} does not fit its network: {error}") from error
    network.eval()
    for parameter in network.parameters():
        assert torch.isfinite(parameter).all(), file.name
