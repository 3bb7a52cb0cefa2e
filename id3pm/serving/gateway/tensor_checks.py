"""Checks of a `ModelInferRequest`, the same for HTTP and gRPC: Triton trusts names, types and shapes as sent."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Collection, Iterable, Iterator, Mapping

import numpy as np

from id3pm.errors import InvalidInputError
from id3pm.sampling.options import did_you_mean
from id3pm.serving.gateway.grpc_types import InferRequest, InferTensor, Parameter
from id3pm.serving.gateway.origin import refuse_reserved
from id3pm.serving.protocol.limits import (
    MAX_DIMS,
    MAX_NAME,
    MAX_NUMBERS,
    MAX_PARAMETERS,
    MAX_REQUEST_PARAMETERS,
    MAX_STRINGS,
    MAX_TIMEOUT_US,
)
from id3pm.serving.protocol.options import check_parameter_names
from id3pm.serving.protocol.served_models import DTYPES, MAX_BATCH, SIGNATURES, VERSION, Tensor
from id3pm.serving.protocol.status import RefusedError

CLASSIFICATION = "classification"
_LENGTH = 4  # bytes before the text of a BYTES element
_BINARY = ("binary_data", "binary_data_size")  # of outputs over HTTP
# The field of `InferTensorContents` for each data type.
_CONTENTS = {
    "BYTES": "bytes_contents",
    "FP32": "fp32_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
}


class _Shown(reprlib.Repr):
    """Writes values as JSON does."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlong = self.maxstring = 64

    def repr_NoneType(self, value: None, level: int) -> str:  # noqa: N802 - the library's name
        return "null"

    def repr_bool(self, value: bool, level: int) -> str:
        return "true" if value else "false"


_SHOWN = _Shown()


def shown(value: object) -> str:
    """The beginning of a request's value for an error message, whatever its size and depth."""
    return _SHOWN.repr(value)[:64]


def invalid(message: str) -> RefusedError:
    """The error for a request that breaks a rule."""
    return RefusedError("invalid_argument", message)


def check_model(model: str) -> None:
    """Refuses models that are not served here."""
    if model not in SIGNATURES:
        raise RefusedError("not_found", f"model {shown(model)} is not served; there are {', '.join(SIGNATURES)}")


def check_version(model: str, version: str) -> None:
    """Refuses versions that are not served; an empty one is the newest.

    Raises:
        RefusedError: Model or version is not served.
    """
    check_model(model)
    if version not in ("", VERSION):
        raise RefusedError(
            "not_found", f"model {model} has no version {shown(version)}: send {VERSION}, or leave the version out"
        )


def check_message(message: InferRequest) -> None:
    """Checks all fields of a request.

    Args:
        message: `ModelInferRequest` to a served model.

    Raises:
        RefusedError: A name is unknown or sent twice, or a tensor does not fit its description.
    """
    check_version(message.model_name, message.model_version)
    signature = SIGNATURES[message.model_name]
    refuse_reserved(message.parameters)
    _check_parameters(message.parameters, signature.inputs)
    _check_outputs(message.outputs, signature.outputs)
    _check_names("input", [tensor.name for tensor in message.inputs], signature.inputs)
    if not message.inputs:
        given = " or ".join(name for name in ("embedding", "photo", "image_64") if name in signature.inputs)
        raise invalid(f"there are no inputs: send {given}")
    raws = message.raw_input_contents
    if raws and len(raws) != len(message.inputs):
        raise invalid(f"{len(raws)} raw contents were sent for {len(message.inputs)} inputs: send one for each")
    for index, tensor in enumerate(message.inputs):
        expected = signature.inputs[tensor.name]
        elements = check_shape(tensor.name, tensor.datatype, list(tensor.shape), expected)
        if tensor.parameters:
            raise invalid(f"input {tensor.name!r} has parameters: must be left out, no input takes any")
        if raws:
            _check_raw(tensor, raws[index], expected, elements)
        else:
            _check_contents(tensor, expected, elements)
    if len(images := {tensor.shape[0] for tensor in message.inputs}) > 1:
        sizes = ", ".join(f"{tensor.name} {list(tensor.shape)}" for tensor in message.inputs)
        raise invalid(f"the inputs are of {' and '.join(map(str, sorted(images)))} images ({sizes[:500]}): must agree")


def check_shape(name: str, datatype: str, shape: list[int], expected: Tensor) -> int:
    """Checks the description of an input.

    Args:
        name: A known input.
        datatype: As sent.
        shape: As sent.
        expected: The expected tensor.

    Returns:
        The number of elements.

    Raises:
        RefusedError: It differs, or is larger than any model takes.
    """
    what = f"input {name!r}"
    if datatype != expected.datatype:
        raise invalid(f"{what}: datatype={shown(datatype)}: must be {expected.datatype}")
    if len(shape) > MAX_DIMS or min(shape, default=0) < 0:
        raise invalid(f"{what}: shape={shown(shape)}: must be at most {MAX_DIMS} sizes, none below 0")
    fits = [size == most or most == -1 for size, most in zip(shape[1:], expected.shape, strict=False)]
    if len(shape) != 1 + len(expected.shape) or not 1 <= shape[0] <= MAX_BATCH or not all(fits):
        rule = ", ".join("any" if size == -1 else str(size) for size in (expected.shape))
        raise invalid(f"{what}: shape={shown(shape)}: must be [images, {rule}], of 1 to {MAX_BATCH} images")
    elements = math.prod(shape)  # of any size: integers do not overflow here
    kind, most = ("strings", MAX_STRINGS) if datatype == "BYTES" else ("numbers", MAX_NUMBERS)
    if elements > most:
        raise invalid(f"{name} has {elements} {kind}: at most {most} are allowed")
    return elements


def leaves(data: object) -> Iterator[object]:
    """The values of nested lists; each takes the same time at any depth."""
    open_lists = [iter((data,))]
    while open_lists:
        for element in open_lists[-1]:
            if isinstance(element, list):
                open_lists.append(iter(element))
                break
            yield element
        else:
            open_lists.pop()


def no_classes(value: object) -> RefusedError:
    """The error for an output by classes."""
    return invalid(f"{CLASSIFICATION}={shown(value)}: must be left out, for no output has classes")


def unknown(kind: str, name: str, known: Collection[str]) -> RefusedError:
    """The error for an unknown name."""
    return invalid(f"{kind} {shown(name)} is unknown: {did_you_mean(name, known)}valid are {', '.join(known)}")


def _check_names(kind: str, names: list[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise unknown(kind, name, known)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise invalid(f"the {kind} {twice} is sent twice: send it once")


def _check_outputs(outputs: Iterable[InferTensor], known: Mapping[str, Tensor]) -> None:
    for output in outputs:
        if CLASSIFICATION in output.parameters:
            raise no_classes(output.parameters[CLASSIFICATION].int64_param)
        if extra := [name for name in output.parameters if name not in _BINARY]:
            raise unknown("output parameter", extra[0], _BINARY)
    _check_names("output", [output.name for output in outputs], known)


def _check_parameters(parameters: Mapping[str, Parameter], inputs: Collection[str]) -> None:
    """Checks the request's own parameters: Triton reads names and texts to their first NUL."""
    if len(parameters) > MAX_REQUEST_PARAMETERS:
        raise invalid(f"the request has {len(parameters)} parameters: at most {MAX_REQUEST_PARAMETERS} are allowed")
    size = 0
    for name, parameter in parameters.items():
        kind = parameter.WhichOneof("parameter_choice")
        value = None if kind is None else getattr(parameter, kind)
        if len(name) > MAX_NAME or not name.isprintable():
            raise invalid(f"the parameter name {shown(name)}: must be at most {MAX_NAME} printable characters")
        if value is None:
            raise invalid(f"parameter {shown(name)} has no value: send one, or leave it out")
        if isinstance(value, str) and "\0" in value:
            raise invalid(f"parameter {shown(name)}={shown(value)}: must not have a NUL in it")
        if isinstance(value, float) and not math.isfinite(value):
            raise invalid(f"parameter {shown(name)}={value}: must be a finite number")
        if name == "timeout" and (kind != "int64_param" or not 0 <= value <= MAX_TIMEOUT_US):
            raise invalid(f"timeout={shown(value)}: expected a whole number of microseconds, at most {MAX_TIMEOUT_US}")
        if name == "priority":
            raise invalid(f"parameter priority={shown(value)}: Triton keeps it for itself; send it as an input")
        size += len(value) if isinstance(value, str) else 0
    if size > MAX_PARAMETERS:
        raise invalid(f"the request parameters have {size} characters together: at most {MAX_PARAMETERS} are allowed")
    try:
        check_parameter_names(parameters, inputs)
    except InvalidInputError as error:
        raise invalid(str(error)) from error


def _check_raw(tensor: InferTensor, raw: bytes, expected: Tensor, elements: int) -> None:
    what = f"input {tensor.name!r} of shape {list(tensor.shape)}"
    if tensor.HasField("contents"):
        raise invalid(f"{what} has contents and raw contents: send one")
    if expected.datatype == "BYTES":
        if (found := _count_strings(raw, elements)) != elements:
            raise invalid(
                f"{what}: {len(raw)} bytes were sent, of {found}: must be {elements}, each with its length "
                f"in {_LENGTH} bytes before it"
            )
    elif len(raw) != (width := DTYPES[expected.datatype].itemsize) * elements:
        raise invalid(f"{what}: {len(raw)} bytes were sent: must be {width} for each {expected.datatype}")


def _count_strings(raw: bytes, most: int) -> str | int:
    """Number of strings in the raw bytes of a BYTES tensor, or a description of their fault."""
    offset = count = 0
    while offset < len(raw):
        if count == most:
            return f"more than {most} strings"
        if offset + _LENGTH > len(raw):
            return f"{count} strings and part of a length"
        offset += _LENGTH + int.from_bytes(raw[offset : offset + _LENGTH], "little")
        count += 1
    return count if offset == len(raw) else f"{count} strings, the last cut short"


def _check_contents(tensor: InferTensor, expected: Tensor, elements: int) -> None:
    what = f"input {tensor.name!r} of shape {list(tensor.shape)}"
    field = _CONTENTS[expected.datatype]
    if wrong := [found.name for found, _ in tensor.contents.ListFields() if found.name != field]:
        raise invalid(f"{what} has {wrong[0]}: {expected.datatype} must be in {field}")
    values = getattr(tensor.contents, field)
    if len(values) != elements:
        raise invalid(f"{what} has {len(values)} elements: must be {elements}, as its shape says")
    if expected.datatype == "UINT8" and elements and np.array(values).max() > 255:
        raise invalid(f"{what} has {max(values)} among its data: must be whole numbers between 0 and 255 (UINT8)")
