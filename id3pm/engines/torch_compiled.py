"""A PyTorch network compiled by `torch.compile`, as the `torch-cuda` engine runs it.

The engine records a CUDA graph over what is compiled, so inductor makes none of its own. The whole network is one
compiled graph, for each batch size alone: what cannot be compiled is an error, never a silent return to plain PyTorch.
Inductor measures nothing that decides the order of a sum (its deterministic mode), so that the next start of a server
computes the same bits. It needs Triton, which comes with PyTorch for CUDA, and a C compiler.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from id3pm.errors import EngineError

FIRST_VERSION = (2, 10)
"""Of PyTorch, with inductor's deterministic mode."""
OPTIONS: Mapping[str, bool] = {"deterministic": True, "triton.cudagraphs": False}
"""Of inductor."""
MOST_SIZES = 4096
"""Batch sizes of all engines of a process. PyTorch's own limit of 8 is for programs with ever new shapes."""


def compiled_network(network: nn.Module) -> Callable[..., Tensor]:
    """The network as a function that compiles itself in its first call of every batch size, for tens of seconds.

    Args:
        network: In evaluation mode, on its device, in its precision.

    Returns:
        Takes the network's tensors by name, and gives its output up to rounding.

    Raises:
        EngineError: What this PyTorch compiles may have other bits at the next start.
    """
    require_compiler()
    whole = torch.compile(network, fullgraph=True, dynamic=False, options=dict(OPTIONS))

    def run(**tensors: Tensor) -> Tensor:
        limits = {"recompile_limit": MOST_SIZES, "accumulated_recompile_limit": MOST_SIZES}
        with torch._dynamo.config.patch(limits):
            output: Tensor = whole(**tensors)
        return output

    return run


def require_compiler() -> None:
    """Refuses a PyTorch with a compiler that does not repeat its bits; before a build, and when an engine is loaded.

    Raises:
        EngineError: What this PyTorch compiles may have other bits at the next start.
    """
    if (version := _version()) < FIRST_VERSION:
        raise EngineError(
            f"torch {torch.__version__}: compiled networks repeat their bits from {_text(FIRST_VERSION)} on, this is "
            f"{_text(version)}; install a newer one, or build without --compile"
        )


def _version() -> tuple[int, ...]:
    return tuple(int(part) for part in torch.__version__.split(".")[:2])


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
