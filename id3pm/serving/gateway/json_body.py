"""Translates JSON bodies of HTTP requests into `ModelInferRequest` messages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

import numpy as np
from tritonclient.grpc import service_pb2

from id3pm.serving.gateway.grpc_types import InferRequest
from id3pm.serving.gateway.tensor_checks import (
    CLASSIFICATION,
    check_shape,
    invalid,
    leaves,
    no_classes,
    shown,
    unknown,
)
from id3pm.serving.protocol.limits import MAX_DIMS, MAX_PARTS
from id3pm.serving.protocol.served_models import DTYPES, SIGNATURES, Tensor

BINARY_SIZE, BINARY, ALL_BINARY = "binary_data_size", "binary_data", "binary_data_output"
_INT64 = 2**63
_LARGEST = 10**300  # whole numbers beyond it are no floats; the stage refuses infinity


def parse_object(body: bytes) -> dict[str, object]:
    """A JSON object (RFC 8259: UTF-8) without repeated keys.

    Raises:
        RefusedError: It is not such an object, or has too many parts.
    """
    parts = body.count(b",") + body.count(b"\\")
    if parts > MAX_PARTS:  # no other request is served while JSON is read
        raise invalid(
            f"the JSON has {parts} commas and backslashes: at most {MAX_PARTS} are allowed; send tensors as binary"
        )
    try:
        document = json.loads(body.decode(), object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise invalid(f"the body is not UTF-8 text: byte {error.start} cannot be read; JSON must be UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise invalid(f"the body is not JSON: {str(error)[:200]}") from error
    if not isinstance(document, dict):
        raise invalid("the body is JSON, but no object: it must be one")
    return document


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise invalid(f"a JSON key is repeated, one of {shown(list(made))}")
    for name in made:
        if not name.isprintable():
            raise invalid(f"the name {shown(name)}: must be printable characters")
    return made


def infer_message(model: str, document: Mapping[str, object], binary: bytes) -> InferRequest:
    """The message of an `infer` request.

    Args:
        model: A served model.
        document: Its JSON.
        binary: The bytes after the JSON: the tensors with a `binary_data_size`, one after the other.

    Raises:
        RefusedError: It breaks the protocol.
    """
    _check_keys("key", document, ("id", "parameters", "inputs", "outputs"))
    message: InferRequest = service_pb2.ModelInferRequest(model_name=model)
    parameters = {**_dict("parameters", document.get("parameters", {}))}
    parameters.pop(ALL_BINARY, None)  # for the answer's encoder
    _add_parameters(message, parameters)
    for output in _dicts("outputs", document.get("outputs", [])):
        _check_keys("key of an output", output, ("name", "parameters"))
        if CLASSIFICATION in (given := _dict("parameters", output.get("parameters", {}))):
            raise no_classes(given[CLASSIFICATION])
        _check_keys("output parameter", given, (BINARY, BINARY_SIZE))
        message.outputs.add(name=_name("output", output))
    offset = 0
    for tensor in _dicts("inputs", document.get("inputs", [])):
        offset += _add_tensor(message, tensor, binary, offset)
    if offset != len(binary):
        raise invalid(f"{len(binary)} bytes lie behind the JSON: must be {offset}, the sum of all {BINARY_SIZE}")
    return message


def generate_message(model: str, document: Mapping[str, object]) -> InferRequest:
    """The message of a `generate` request, whose inputs and parameters are plain keys; null counts as missing.

    A whole number that is too large for its tensor goes as a parameter, so that the stage can refuse it by its own
    rule.

    Args:
        model: A served model.
        document: Its JSON.

    Raises:
        RefusedError: A value has a type that its input does not have.
    """
    further = _dict("parameters", document.get("parameters", {}))
    values = {name: value for name, value in document.items() if name not in ("id", "parameters")}
    if both := sorted(set(values) & set(further)):
        raise invalid(f"{both[0]} is sent twice, also among parameters: send it once")
    given = {name: value for name, value in {**values, **further}.items() if value is not None}
    message: InferRequest = service_pb2.ModelInferRequest(model_name=model)
    inputs, parameters = SIGNATURES[model].inputs, {}
    for name, value in given.items():
        if name not in inputs or _too_large(inputs[name], value):
            parameters[name] = value
            continue
        shape, elements = _flat(name, value)
        if _wrong(inputs[name], elements):
            hint = "; attribute_values takes them by name" if name == "attributes" else ""
            raise invalid(f"{name}={shown(value)}: {_rule(inputs[name])}{hint}")
        check_shape(name, inputs[name].datatype, [1, *shape], inputs[name])
        add_input(message, name, inputs[name].datatype, [1, *shape], _encoded(name, inputs[name], elements))
    _add_parameters(message, parameters)
    return message


def add_input(message: InferRequest, name: str, datatype: str, shape: Iterable[int], raw: bytes) -> None:
    """Adds an input tensor, its content as raw bytes."""
    message.inputs.add(name=name, datatype=datatype, shape=shape)
    message.raw_input_contents.append(raw)


def _add_tensor(message: InferRequest, tensor: Mapping[str, object], binary: bytes, offset: int) -> int:
    """Adds an input of an `infer` request; gives the bytes that it took of `binary`, from `offset` on."""
    _check_keys("key of an input", tensor, ("name", "shape", "datatype", "parameters", "data"))
    name = _name("input", tensor)
    inputs = SIGNATURES[message.model_name].inputs
    if name not in inputs:
        raise unknown("input", name, inputs)
    what, shape, datatype = f"input {name!r}", tensor.get("shape"), tensor.get("datatype")
    if not isinstance(shape, list) or len(shape) > MAX_DIMS or not all(map(_is_size, shape)):
        raise invalid(f"{what}: shape={shown(shape)}: must be a list of at most {MAX_DIMS} sizes")
    if not isinstance(datatype, str):
        raise invalid(f"{what}: datatype={shown(datatype)}: must be {inputs[name].datatype}")
    elements = check_shape(name, datatype, shape, inputs[name])
    parameters = _dict("parameters", tensor.get("parameters", {}))
    _check_keys("input parameter", parameters, (BINARY_SIZE,))
    if (BINARY_SIZE in parameters) == ("data" in tensor):
        number = "both" if "data" in tensor else "neither"
        raise invalid(f"{what} has {number} of data and {BINARY_SIZE}: send one")
    if BINARY_SIZE in parameters:
        size = parameters[BINARY_SIZE]
        if not _is_size(size) or offset + size > len(binary):
            left = len(binary) - offset
            raise invalid(f"{what}: {BINARY_SIZE}={shown(size)}: must be a number of bytes, at most {left} are left")
        add_input(message, name, datatype, shape, binary[offset : offset + size])
        return size
    values = list(leaves(tensor["data"]))
    for wrong in _wrong(inputs[name], values):
        raise invalid(f"{what} has {shown(wrong)} among its data: {_rule(inputs[name])}")
    if len(values) != elements:
        raise invalid(f"{what} has {len(values)} elements: must be {elements}, as its shape {shape} says")
    add_input(message, name, datatype, shape, _encoded(name, inputs[name], values))
    return 0


def _wrong(expected: Tensor, values: list[Any]) -> list[object]:
    """The first value that no tensor of this type can hold, if there is one. There may be half a million of them."""
    by_type: dict[str, set[type]] = {"BYTES": {str}, "FP32": {int, float}}
    kinds = by_type.get(expected.datatype, {int})
    if not set(map(type, values)) <= kinds:
        return [next(value for value in values if type(value) not in kinds)]
    if values and kinds == {int}:
        limits = np.iinfo(DTYPES[expected.datatype])
        return [value for value in (min(values), max(values)) if not limits.min <= value <= limits.max][:1]
    return []


def _rule(expected: Tensor) -> str:
    kind = {"BYTES": "text", "FP32": "numbers", "UINT8": "whole numbers between 0 and 255"}
    if expected.shape == (1,):
        kind = {**kind, "FP32": "a number"}
    return f"must be {kind.get(expected.datatype, f'a whole number ({expected.datatype})')}"


def _too_large(expected: Tensor, value: object) -> bool:
    return expected.datatype in ("INT32", "INT64") and type(value) is int and bool(_wrong(expected, [value]))


def _flat(name: str, value: object) -> tuple[list[int], list[object]]:
    """Shape and elements of nested lists; a value that is no list is one element."""
    shape: list[int] = []
    level = [value]
    while any(isinstance(entry, list) for entry in level):
        sizes = {len(entry) if isinstance(entry, list) else -1 for entry in level}
        if len(sizes) > 1 or len(shape) == MAX_DIMS:
            raise invalid(f"{name}={shown(value)}: lists within it must have one length, in at most {MAX_DIMS} levels")
        shape += sizes
        level = [element for entry in level if isinstance(entry, list) for element in entry]
    return shape or [1], level


def _encoded(name: str, expected: Tensor, values: list[Any]) -> bytes:
    """The bytes of a tensor, little-endian."""
    if expected.datatype == "BYTES":
        return b"".join(len(data).to_bytes(4, "little") + data for data in (_utf8(name, text) for text in values))
    if expected.datatype == "FP32":
        with np.errstate(over="ignore"):  # what is too large becomes infinite, which the stage refuses
            return np.array([min(max(value, -_LARGEST), _LARGEST) for value in values], dtype="<f4").tobytes()
    return np.array(values, dtype=DTYPES[expected.datatype]).tobytes()


def _add_parameters(message: InferRequest, parameters: Mapping[str, object]) -> None:
    for name, value in parameters.items():
        _utf8("the name of a parameter", name)
        if isinstance(value, str):
            _utf8(name, value)
        if isinstance(value, list):  # a parameter cannot be one: the stage reads a vector from its JSON text
            value = json.dumps(value)
        if isinstance(value, int) and not isinstance(value, bool) and not -_INT64 <= value < _INT64:
            value = str(value)
        kind = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}.get(type(value))
        if kind is None:
            raise invalid(f"parameter {shown(name[:64])}={shown(value)}: must be a number, text or a list")
        setattr(message.parameters[name], kind, value)


def _utf8(name: str, text: str) -> bytes:
    """UTF-8 of a text; refuses halves of characters, which JSON can write and UTF-8 cannot."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise invalid(f"{name}={shown(text)}: must be Unicode, but has half of a character") from None


def _is_size(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < _INT64


def _name(kind: str, entry: Mapping[str, object]) -> str:
    name = entry.get("name")
    if not isinstance(name, str):
        raise invalid(f"the name of an {kind} is {shown(name)}: must be text")
    _utf8(f"the name of an {kind}", name)
    return name


def _check_keys(kind: str, entry: Mapping[str, object], known: tuple[str, ...]) -> None:
    for key in entry:
        if key not in known:
            raise unknown(kind, key, known)


def _dict(name: str, sent: object) -> dict[str, object]:
    if not isinstance(sent, dict):
        raise invalid(f"{name}={shown(sent)}: must be an object")
    return sent


def _dicts(name: str, sent: object) -> list[dict[str, object]]:
    if not isinstance(sent, list) or not all(isinstance(entry, dict) for entry in sent):
        raise invalid(f"{name}: must be a list of objects")
    return sent
