"""Reading guided-diffusion's checkpoints: `model*.pt` (raw) and `ema_*.pt` are both a plain state dict."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from id3pm.config import UNetConfig
from id3pm.errors import CheckpointError
from id3pm.unet.keys import require_same_shapes
from id3pm.unet.model import expected_shapes

__all__ = ["check_keys", "expected_shapes", "read_checkpoint", "read_plain"]


def read_plain(path: str | os.PathLike[str]) -> Any:
    """What `torch.save` wrote: tensors, numbers, text, lists and dicts, on the CPU.

    Nothing else is unpickled (`weights_only=True`): a file from a stranger cannot run code.

    Raises:
        CheckpointError: The file is missing or damaged, or holds other Python objects.
    """
    file = Path(path)
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint {file.name!r}") from None
    except (OSError, EOFError, RuntimeError, ValueError, LookupError, pickle.UnpicklingError) as error:
        # torch's own texts are about its internals, or advise to let the file run its code.
        if found := re.search(r"GLOBAL (\S+)", str(error)):
            raise CheckpointError(
                f"{file.name} holds Python objects ({found[1]}), which only code from the file could restore: it is "
                "refused. Save the state dict alone (torch.save(model.state_dict(), ...))"
            ) from error
        raise CheckpointError(
            f"{file.name} ({file.stat().st_size} bytes) is no PyTorch checkpoint, or is damaged: copy it again"
        ) from error


def read_checkpoint(
    path: str | os.PathLike[str], rename: Mapping[str, str] | None = None
) -> dict[str, npt.NDArray[np.float32]]:
    """The tensors of a checkpoint as float32 (fp16 and bf16 are converted).

    Args:
        path: The `.pt` file.
        rename: New key prefix by old one, for checkpoints that name a layer otherwise, e.g.
            `{"id_embed.": "identity_embed."}`.

    Raises:
        CheckpointError: The file is missing or damaged, holds anything but tensors, or a prefix of `rename` is not in
            it or makes two keys equal.
    """
    file = Path(path)
    state = read_plain(file)
    if not isinstance(state, dict) or not state:
        raise CheckpointError(f"{file.name} holds a {type(state).__name__}: expected a state dict, tensor by name")
    foreign = [str(key) for key, value in state.items() if not (isinstance(key, str) and torch.is_tensor(value))]
    if foreign:
        raise CheckpointError(
            f"{file.name} is not a state dict: {', '.join(foreign[:8])} are not tensors. Give guided-diffusion's "
            "model*.pt or ema_*.pt (opt*.pt is the optimiser)"
        )
    tensors = {key: value.float().numpy() for key, value in state.items()}
    return _renamed(file.name, tensors, rename or {})


def check_keys(config: UNetConfig, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    """Checks that the tensors are exactly those of the architecture.

    Raises:
        CheckpointError: The message lists all missing, unknown and mis-shaped keys.
    """
    require_same_shapes(expected_shapes(config), {key: tensor.shape for key, tensor in tensors.items()})


def _renamed(
    name: str, tensors: dict[str, npt.NDArray[np.float32]], rename: Mapping[str, str]
) -> dict[str, npt.NDArray[np.float32]]:
    for old, new in rename.items():
        renamed = {new + key.removeprefix(old) if key.startswith(old) else key: tensors[key] for key in tensors}
        if renamed.keys() == tensors.keys():
            raise CheckpointError(f"rename {old}={new}: {name} has no key that begins with {old!r}")
        if len(renamed) < len(tensors):
            raise CheckpointError(f"rename {old}={new}: {name} already has keys that begin with {new!r}")
        tensors = renamed
    return tensors
