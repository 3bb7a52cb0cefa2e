"""Checks that tensors are what their descriptions say; Triton trusts these, and some end it."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator, Mapping
from typing import Any

from id3pm.serving.protocol.limits import MAX_DIMS
from id3pm.serving.protocol.status import RefusedError
from id3pm.serving.protocol.wire import OPTIONS

# Bytes of an element; None is text with four bytes of length before it.
DATATYPES: Mapping[str, int | None] = {
    "BOOL": 1,
    "UINT8": 1,
    "UINT16": 2,
    "UINT32": 4,
    "UINT64": 8,
    "INT8": 1,
    "INT16": 2,
    "INT32": 4,
    "INT64": 8,
    "FP16": 2,
    "BF16": 2,
    "FP32": 4,
    "FP64": 8,
    "BYTES": None,
}
BINARY_SIZE = "binary_data_size"
_LENGTH = 4  # bytes before the text of a BYTES element
_CLASSIFICATION = "classification"
_BY_NAME: Mapping[str, str] = {
    "embedding": "FP32",
    "photo": "BYTES",
    "face": "BYTES",
    "image_64": "UINT8",
    "receipt_64": "BYTES",
    **{option.name: "BYTES" if option.dtype == "STRING" else option.dtype for option in OPTIONS},
}


def leaves(data: Any) -> Iterator[Any]:
    """The values of nested lists; each takes the same time, however deep it lies."""
    open_lists = [iter((data,))]
    while open_lists:
        for element in open_lists[-1]:
            if isinstance(element, list):
                open_lists.append(iter(element))
                break
            yield element
        else:
            open_lists.pop()


def shown(value: Any) -> str:
    """A value of a body for a message: its beginning, whatever its size and depth."""
    return reprlib.repr(value)[:64]


def check_outputs(outputs: Any) -> None:
    """The list `outputs` of an `infer` request.

    Raises:
        RefusedError: It is no list of objects, or asks for classes, which no output has.
    """
    for output in _objects("outputs", outputs):
        parameters = output.get("parameters")
        if isinstance(parameters, dict) and _CLASSIFICATION in parameters:
            raise no_classes(parameters[_CLASSIFICATION])


def check_inputs(inputs: Any) -> list[dict[str, Any]]:
    """The list `inputs` of an `infer` request: the shape of each tensor must be that of what is sent.

    Triton makes room for as many elements as the shape says before it looks at them.

    Returns:
        The inputs.

    Raises:
        RefusedError: It is no list of objects, or one of them breaks the rule.
    """
    tensors = _objects("inputs", inputs)
    for tensor in tensors:
        _check_input(tensor)
    return tensors


def check_values(values: Mapping[str, Any]) -> None:
    """The values of a `generate` request, of which Triton makes tensors.

    Raises:
        RefusedError: One has another type than its input.
    """
    for name, value in values.items():
        if name in _BY_NAME and _wrong(_BY_NAME[name], list(leaves(value))):
            hint = "; attribute_values takes them by name" if name == "attributes" else ""
            raise RefusedError("INVALID_ARGUMENT", f"{name}={shown(value)}: {_rule(_BY_NAME[name])}{hint}")


def no_classes(value: Any) -> RefusedError:
    """The refusal of an output by classes."""
    what = f"{_CLASSIFICATION}={shown(value)}"
    return RefusedError("INVALID_ARGUMENT", f"{what}: must be left out, for no output has classes")


def _check_input(tensor: Mapping[str, Any]) -> None:
    name, shape, datatype = tensor.get("name"), tensor.get("shape"), tensor.get("datatype")
    what = f"input {str(name)[:64]!r}"
    if not isinstance(shape, list) or len(shape) > MAX_DIMS or not all(_is_size(size) for size in shape):
        raise RefusedError(
            "INVALID_ARGUMENT", f"{what}: shape={shown(shape)}: must be a list of at most {MAX_DIMS} sizes"
        )
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise RefusedError(
            "INVALID_ARGUMENT", f"{what}: datatype={shown(datatype)}: must be one of {', '.join(DATATYPES)}"
        )
    elements = math.prod(shape)
    parameters = tensor.get("parameters")
    parameters = parameters if isinstance(parameters, dict) else {}
    binary = BINARY_SIZE in parameters
    if binary == ("data" in tensor):
        number = "both" if binary else "neither"
        raise RefusedError("INVALID_ARGUMENT", f"{what} has {number} of data and {BINARY_SIZE}: send one")
    if binary:
        _check_binary(f"{what} of shape {shape}", elements, datatype, parameters[BINARY_SIZE])
    else:
        _check_data(what, shape, elements, datatype, list(leaves(tensor["data"])))


def _check_binary(what: str, elements: int, datatype: str, size: Any) -> None:
    if not _is_size(size):
        raise RefusedError("INVALID_ARGUMENT", f"{what}: {BINARY_SIZE}={shown(size)}: must be a number of bytes")
    width = DATATYPES[datatype]
    if width is None and size < _LENGTH * elements:
        raise RefusedError("INVALID_ARGUMENT", f"{what}: {size} bytes were sent: each text has {_LENGTH} before it")
    if width is not None and size != width * elements:
        raise RefusedError(
            "INVALID_ARGUMENT", f"{what}: {size} bytes were sent: must be {width} for each {datatype} of the shape"
        )


def _check_data(what: str, shape: list[int], elements: int, datatype: str, data: list[Any]) -> None:
    for wrong in _wrong(datatype, data):
        raise RefusedError("INVALID_ARGUMENT", f"{what} has {shown(wrong)} among its data: {_rule(datatype)}")
    if len(data) != elements:
        raise RefusedError(
            "INVALID_ARGUMENT", f"{what} has {len(data)} elements: must be {elements}, as its shape {shape} says"
        )


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _wrong(datatype: str, values: list[Any]) -> list[Any]:
    """The first value that no tensor of this type can hold, if there is one. There may be half a million of them."""
    kinds = _kinds(datatype)
    if not set(map(type, values)) <= kinds:
        return [next(value for value in values if type(value) not in kinds)]
    if values and kinds == {int}:
        least, most = _range(datatype)
        return [value for value in (min(values), max(values)) if not least <= value <= most][:1]
    return []


def _kinds(datatype: str) -> set[type]:
    if datatype == "BYTES":
        return {str}
    if datatype == "BOOL":
        return {bool}
    return {int} if "INT" in datatype else {int, float}


def _rule(datatype: str) -> str:
    if datatype == "BYTES":
        return "must be text"
    if datatype == "BOOL":
        return "must be true or false"
    if "INT" not in datatype:
        return "must be numbers"
    least, most = _range(datatype)
    return f"must be whole numbers between {least} and {most} ({datatype})"


def _range(datatype: str) -> tuple[int, int]:
    bits = 8 * (DATATYPES[datatype] or 0)
    return (0, 2**bits - 1) if datatype.startswith("U") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def _objects(name: str, sent: Any) -> list[dict[str, Any]]:
    if not isinstance(sent, list) or not all(isinstance(entry, dict) for entry in sent):
        raise RefusedError("INVALID_ARGUMENT", f"{name}: must be a list of objects")
    return sent
