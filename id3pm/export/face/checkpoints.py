"""Reads published FR checkpoints: state dicts, alone or among the objects of a training run."""

from __future__ import annotations

import pickle
import types
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from id3pm.errors import CheckpointError, MissingExtraError
from id3pm.installation import how_to_install
from id3pm.unet.keys import require_same_shapes

if TYPE_CHECKING:
    from torch import Tensor, nn

_ALLOWED = {("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_tensor"), ("torch", "Size")}
_COUNTERS = ".num_batches_tracked"
"""Counter of batch norms; older checkpoints lack it, and inference does not need it."""


class _Inert:
    """Placeholder for every object that is not a tensor: nothing is imported or run for it."""

    def __new__(cls, *args: object, **kwargs: object) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __call__(self, *args: object, **kwargs: object) -> _Inert:
        return self

    def __setstate__(self, state: object) -> None:
        pass

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def append(self, value: object) -> None:
        """Takes what a list would."""

    def extend(self, values: object) -> None:
        """Takes what a list would."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda data, *_: data
        return super().find_class(module, name) if (module, name) in _ALLOWED else _Inert


def _load(file: Any, **kwargs: Any) -> Any:
    return _Unpickler(file, **kwargs).load()


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by key: those under `state_dict` where there is one.

    Training runs store configurations, optimisers and callbacks beside the weights. Such objects are skipped, never
    imported, so an untrusted file cannot run code.

    Raises:
        CheckpointError: The file is missing, damaged, or has no state dict.
        MissingExtraError: PyTorch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError(f"PyTorch checkpoints need torch: {how_to_install('export')}") from error
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}")
    reader = types.SimpleNamespace(Unpickler=_Unpickler, load=_load, __name__="inert")
    try:
        content = torch.load(path, map_location="cpu", weights_only=False, pickle_module=reader)
    except Exception as error:  # pickle raises many classes of errors on damaged files
        size = path.stat().st_size
        raise CheckpointError(
            f"{path.name} ({size} bytes) is no PyTorch checkpoint, or is damaged: copy it again"
        ) from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not any(torch.is_tensor(value) for value in state.values()):
        raise CheckpointError(f"{path.name} has no state dict: it holds a {type(content).__name__}")
    return {str(key): value for key, value in state.items() if torch.is_tensor(value)}


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], prefix: str, unused: Sequence[str]) -> None:
    """Gives a network its weights, and refuses if they are not exactly those that it has.

    Args:
        network: The network.
        state: From `read_state_dict`. `module.` before every key, which data parallelism puts there, is dropped.
        prefix: Where keys begin with it, they are the network's (without it), and others belong to something else.
        unused: Prefixes of keys that belong to the training head.

    Raises:
        CheckpointError: The message lists all missing, unknown and mis-shaped keys.
    """
    for start in ("module.", prefix):
        chosen = {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}
        if chosen and (start == prefix or len(chosen) == len(state)):
            state = chosen
    state = {key: value for key, value in state.items() if not key.startswith((*unused, "\0"))}
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items() if not key.endswith(_COUNTERS)}
    require_same_shapes(
        expected, {key: tuple(value.shape) for key, value in state.items() if not key.endswith(_COUNTERS)}
    )
    network.load_state_dict({key: state[key].float() for key in expected}, strict=False)
