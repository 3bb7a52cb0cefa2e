"""Converts foreign ONNX files for the face stage: one file, float32 input."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from id3pm.errors import EngineError, EngineMissingError
from id3pm.export.face.export import import_onnx

MOST_BYTES = 2**31 - 1
"""Largest ONNX file with its weights inside, the limit of protobuf messages."""


def outside_files(network: Path) -> tuple[Path, ...]:
    """The files beside an ONNX file that hold its weights; empty where the weights are inside.

    Raises:
        EngineMissingError: One is not there.
        EngineError: The file cannot be read, or names a file elsewhere.
    """
    names = {
        entry.value
        for tensor in _read(network, weights=False).graph.initializer
        for entry in tensor.external_data
        if entry.key == "location"
    }
    folder = network.parent.resolve()
    files = tuple(network.parent / name for name in sorted(names))
    for file in files:
        if folder not in file.resolve().parents:
            raise EngineError(f"{network.name} has weights in {file}, outside of its folder: move both together")
        if not file.is_file():
            raise EngineMissingError(f"there is no file {file}, in which {network.name} has its weights: copy it there")
    return files


def copy_network(network: Path, target: Path) -> None:
    """Copies an ONNX file; weights beside it are taken inside, and inputs of other float types become float32.

    Raises:
        EngineMissingError: A file with weights is not there.
        EngineError: The file cannot be read, is too large for one file, or takes no floating-point pictures.
    """
    onnx = import_onnx()
    outside = outside_files(network)
    model = _read(network, weights=bool(outside))
    cast = [value for value in model.graph.input if not _is_float32(value, model)]
    if not outside and not cast:
        shutil.copyfile(network, target)
        return
    if (size := sum(file.stat().st_size for file in (network, *outside))) > MOST_BYTES:
        raise EngineError(f"{network.name} with its weights has {size} bytes: an FR model may have {MOST_BYTES}")
    if not outside:
        model = _read(network, weights=True)
    for value in [value for value in model.graph.input if not _is_float32(value, model)]:
        _cast_input(model, value, network.name)
    try:
        onnx.save(model, target)
    except Exception as error:  # protobuf's, for what does not fit into a message
        raise EngineError(f"{network.name} cannot be written as one file: {error}") from error


def _read(network: Path, weights: bool) -> Any:
    """An ONNX file as a protobuf message."""
    try:
        return import_onnx().load(network, load_external_data=weights)
    except Exception as error:  # protobuf's DecodeError, whose module depends on protobuf's implementation
        raise EngineError(f"{network.name} is not a readable ONNX file: {error}") from error


def _is_float32(value: Any, model: Any) -> bool:
    if any(value.name == tensor.name for tensor in model.graph.initializer):  # old exports list weights as inputs
        return True
    return bool(value.type.tensor_type.elem_type == import_onnx().TensorProto.FLOAT)


def _cast_input(model: Any, value: Any, name: str) -> None:
    """Makes an input float32, followed by a Cast to the type that the network has."""
    onnx = import_onnx()
    kinds = onnx.TensorProto
    kind = value.type.tensor_type.elem_type
    if kind not in (kinds.FLOAT16, kinds.DOUBLE, kinds.BFLOAT16):
        known = kinds.DataType.Name(kind).lower()
        raise EngineError(f"{name} takes {known} pictures: an FR model takes float32, float16, bfloat16 or float64")
    inner = f"{value.name}_cast"
    for node in model.graph.node:
        for position, source in enumerate(node.input):
            if source == value.name:
                node.input[position] = inner
    model.graph.node.insert(0, onnx.helper.make_node("Cast", [value.name], [inner], to=kind))
    value.type.tensor_type.elem_type = kinds.FLOAT
