"""PyTorch module -> ONNX file for the face stage, and the proof that both compute the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from id3pm.errors import MissingExtraError, ParityError
from id3pm.export.face import graphs as face_graphs
from id3pm.face.runtime import open_session
from id3pm.installation import how_to_install

if TYPE_CHECKING:
    from torch import nn

PARITY_LIMIT = 2e-5
"""Largest allowed difference from the original: fp32 rounding in another order (measured: 3e-6)."""
INPUT = "input"  # as face_trace.py calls it


def export_network(
    network: nn.Module, path: Path, size: tuple[int, int], outputs: Sequence[str], any_size: bool = False
) -> None:
    """Writes a network with one picture as input, and checks that the graph computes the same as the module.

    Args:
        network: In evaluation mode; takes float32 [N, 3, H, W].
        path: The file to write.
        size: Height and width of its pictures; with `any_size`, of the ones that are compared.
        outputs: Names of its outputs, in order.
        any_size: Height and width are free.

    Raises:
        MissingExtraError: onnx is not installed.
        EngineError: The network has a layer that the exporter does not support.
        ParityError: The graph's outputs differ from the module's.
    """
    onnx = import_onnx()
    from id3pm.export.face.trace import trace  # imports PyTorch, which not every FR model needs

    network = network.eval().requires_grad_(False)
    model = trace(network, ("H", "W") if any_size else size, outputs)
    face_graphs.rewrite_prelu(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    require_parity(network, path, size)


def require_parity(network: nn.Module, path: Path, size: tuple[int, int]) -> float:
    """Largest difference of any output on noise, relative to that output's largest value where it is above 1.

    Raises:
        ParityError: It is above `PARITY_LIMIT`.
    """
    import torch

    noise = np.random.Generator(np.random.Philox(0)).uniform(-1, 1, (3, 3, *size)).astype(np.float32)
    with torch.no_grad():
        answer = network(torch.from_numpy(noise))
    expected = [item.numpy() for item in (answer if isinstance(answer, tuple) else (answer,))]
    difference = greatest_difference(expected, open_session(path, threads=None).run(None, {INPUT: noise}))
    if not difference <= PARITY_LIMIT:
        raise ParityError(f"{path.name} differs from its original by {difference:.1e}: at most {PARITY_LIMIT:g}")
    return difference


def greatest_difference(expected: Sequence[npt.NDArray[Any]], actual: Sequence[npt.NDArray[Any]]) -> float:
    """Over all outputs [N, ...]; relative to the expected output's largest value where that is above 1. NaN for NaN."""
    differences = []
    for wanted, found in zip(expected, actual, strict=True):
        scale = max(float(np.abs(wanted).max()), 1.0)
        differences.append(float(np.abs(found - wanted.reshape(found.shape)).max()) / scale)
    return float(np.max(differences))


def import_onnx() -> Any:
    """The library, or an error that says how to get it."""
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError(f"building face models needs onnx: {how_to_install('face')}") from error
    return onnx


def graph_shapes(path: Path) -> tuple[Mapping[str, list[Any]], Mapping[str, list[Any]]]:
    """Dimensions of an ONNX file's inputs and outputs by name: numbers, or the names of free ones."""
    session = open_session(path, threads=1)
    return (
        {item.name: item.shape for item in session.get_inputs()},
        {item.name: item.shape for item in session.get_outputs()},
    )
