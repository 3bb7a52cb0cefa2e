"""Reading guided-diffusion's checkpoints: `model*.pt` (raw) and `ema_*.pt` are both a plain state dict."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from id3pm.config import UNetConfig
from id3pm.errors import CheckpointError
from id3pm.formats.weights import not_finite
from id3pm.unet.keys import bare, require_same_shapes, unwrapped
from id3pm.unet.model import expected_shapes

__all__ = ["check_keys", "expected_shapes", "read_checkpoint", "read_plain"]

Arrays = dict[str, npt.NDArray[np.float32]]
AVERAGE_COUNTER = "n_averaged"
"""Key that `torch.optim.swa_utils.AveragedModel` adds to the state dict of the network that it averages."""


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
        # torch's own messages are about its internals, or advise to let the file run its code.
        if found := re.search(r"GLOBAL (\S+)", str(error)):
            raise CheckpointError(
                f"{file.name} holds Python objects ({found[1]}), which only code from the file could restore: it is "
                "refused. Save the state dict alone (torch.save(model.state_dict(), ...))"
            ) from error
        raise CheckpointError(
            f"{file.name} ({file.stat().st_size} bytes) is no PyTorch checkpoint, or is damaged: copy it again"
        ) from error


def read_checkpoint(
    path: str | os.PathLike[str],
    rename: Mapping[str, str] | None = None,
    report: Callable[[str], object] | None = None,
) -> Arrays:
    """The tensors of a checkpoint as float32 (fp16, bf16 and fp8 are converted).

    The names that wrappers add to every key (`id3pm.unet.keys.WRAPPERS`: DDP, FSDP, `torch.compile`) are removed.

    Args:
        path: The `.pt` file.
        rename: New key prefix by old one, for checkpoints that name a layer otherwise, e.g.
            `{"id_embed.": "identity_embed."}`; a new one may be empty.
        report: Called with a line for each part that was removed.

    Raises:
        CheckpointError: The file is missing or damaged, holds anything but tensors of finite numbers, or a prefix of
            `rename` is not in it or makes two keys equal.
    """
    file = Path(path)
    state = read_plain(file)
    if not isinstance(state, dict) or not state:
        raise CheckpointError(f"{file.name} holds a {type(state).__name__}: expected a state dict, tensor by name")
    _require_tensors(file.name, state)
    tensors = {key: _array(file.name, key, value) for key, value in state.items()}
    tensors, removed = _without_wrappers(file.name, tensors)
    for line in removed:
        (report or _ignore)(f"{file.name}: {line}")
    return _renamed(file.name, tensors, rename or {}, bool(removed))


def check_keys(config: UNetConfig, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    """Checks that the tensors are exactly those of the architecture.

    Raises:
        CheckpointError: The message counts the missing, unknown and mis-shaped keys and names the first of each.
    """
    require_same_shapes(expected_shapes(config), {key: tensor.shape for key, tensor in tensors.items()})


def _ignore(line: str) -> None:
    pass


def _require_tensors(name: str, state: Mapping[Any, Any]) -> None:
    foreign = [str(key) for key, value in state.items() if not (isinstance(key, str) and torch.is_tensor(value))]
    if not foreign:
        return
    inside = [
        key for key, value in state.items() if isinstance(value, dict) and any(map(torch.is_tensor, value.values()))
    ]
    if inside:
        raise CheckpointError(
            f"{name} holds more than one state dict ({', '.join(map(str, inside[:8]))}): save the one that you want "
            f"alone: torch.save(torch.load({name!r}, weights_only=True)[{inside[0]!r}], 'weights.pt')"
        )
    raise CheckpointError(
        f"{name} is not a state dict: {', '.join(foreign[:8])} are not tensors. Give guided-diffusion's "
        "model*.pt or ema_*.pt (opt*.pt is the optimiser)"
    )


def _array(name: str, key: str, tensor: torch.Tensor) -> npt.NDArray[np.float32]:
    if key == AVERAGE_COUNTER:
        return np.asarray(tensor.detach().numpy(), np.float32)
    if not tensor.is_floating_point() or tensor.layout != torch.strided:
        raise CheckpointError(
            f"{name}: {key} is {tensor.dtype} ({tensor.layout}): weights are dense floating-point tensors"
        )
    array: npt.NDArray[np.float32] = tensor.detach().float().numpy()
    if problem := not_finite({key: array}):
        raise CheckpointError(f"{name}: {problem}")
    return array


def _without_wrappers(name: str, tensors: Arrays) -> tuple[Arrays, list[str]]:
    """Tensors under the names that the network itself gives them, and what was taken off."""
    removed = []
    if AVERAGE_COUNTER in tensors and tensors[AVERAGE_COUNTER].size == 1 and len(tensors) > 1:
        tensors = {key: tensor for key, tensor in tensors.items() if key != AVERAGE_COUNTER}
        removed.append(f"left out {AVERAGE_COUNTER}, the counter of torch's AveragedModel")
    names, wrappers = unwrapped(list(tensors))
    if wrappers:
        if len(set(names)) < len(names):
            raise CheckpointError(f"{name}: keys are the same without {', '.join(wrappers)}: save one state dict alone")
        removed.append(f"took {', '.join(wrappers)} off the keys")
    return dict(zip(names, tensors.values(), strict=True)), removed


def _renamed(name: str, tensors: Arrays, rename: Mapping[str, str], without_wrappers: bool) -> Arrays:
    for old, new in rename.items():
        # A wrapper's name, which the user may have seen in the file, has been taken off already.
        start = bare(old) if without_wrappers else old
        if start == new and start != old:
            continue
        renamed = {new + key.removeprefix(start) if key.startswith(start) else key: tensors[key] for key in tensors}
        if renamed.keys() == tensors.keys():
            raise CheckpointError(f"rename {old}={new}: {name} has no key that begins with {old!r}")
        if len(renamed) < len(tensors):
            raise CheckpointError(f"rename {old}={new}: {name} already has keys that begin with {new!r}")
        tensors = renamed
    return tensors
