"""Options of a request, checked: one `RowOptions` per image."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import numpy as np

from id3pm.attributes import AttributeSet, encode, parse_values
from id3pm.config import MAX_SEED, SamplingOptions, broken_rule
from id3pm.errors import InvalidInputError, InvalidOptionError
from id3pm.sampling.options import did_you_mean
from id3pm.sampling.presets import preset
from id3pm.serving.protocol.error_envelope import ERROR_TAG
from id3pm.serving.protocol.limits import MAX_TEXT, MAX_VECTOR
from id3pm.serving.protocol.wire import (
    OPTION_NAMES,
    OPTIONS,
    OPTIONS_BY_NAME,
    STAGES,
    Array,
    Option,
    Stage,
    shortest_float,
    text,
)

T = TypeVar("T")
MAX_PRIORITY = 9
_LONGEST_NUMBER = 26  # characters of a number in JSON with its separator
# Parameters that Triton and its HTTP generate endpoint add to a request; x- are forwarded headers.
_TRITON_PARAMETERS = ("id", "timeout", "binary_data_output", "sequence_id", "sequence_start", "sequence_end")
_TRITON_PREFIXES = ("triton_", "x-")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RowOptions:
    """The checked values of one image.

    Attributes:
        seed: 0 .. 2^63 - 1.
        priority: 0 (first) .. 9 (last).
        options: The stage's sampling options: the sent ones, over those of the preset or else of the bundle.
        attributes: float32 [A], as sent or of the values that were sent by name; or `None`.
        id_vector_model: The declared FR model of the ID vector, or `None`.
    """

    seed: int
    priority: int
    options: SamplingOptions
    attributes: Array | None
    id_vector_model: str | None


def parse_rows(
    stage: Stage,
    rows: int,
    tensors: Mapping[str, Array],
    parameters: Mapping[str, Any],
    defaults: SamplingOptions,
    attribute_set: AttributeSet | None = None,
    seed_of: Callable[[int], int] | None = None,
) -> list[RowOptions]:
    """The options of every image of a request.

    Args:
        stage: The stage that asks. Options of the other stage are checked too, as far as they are among `tensors` and
            `parameters`: an error should come before the work of the 64 px stage, not after it.
        rows: Images in the request (Triton's batch dimension).
        tensors: Input tensors by name, each [rows, length].
        parameters: Request parameters by name, JSON scalars; one value counts for all rows.
        defaults: The bundle's options of this stage, for what is not sent.
        attribute_set: The bundle's, for attributes that are sent by name.
        seed_of: Gives the seed of a row without one; `None` if a seed is required.

    Raises:
        InvalidInputError: A parameter is unknown, a value breaks its rule, or a tensor and a parameter disagree.
    """
    check_parameter_names(parameters)
    for other in STAGES:
        if other != stage:
            # That stage's defaults are not known here; ddim is the sampler that goes with every other option.
            _check_options(other, _sent(other, rows, tensors, parameters), rows, SamplingOptions(sampler="ddim"))
    sent = _sent(stage, rows, tensors, parameters)
    if "seed" not in sent:
        if seed_of is None:
            raise InvalidInputError(f"seed is missing: send a whole number between 0 and {MAX_SEED}")
        sent["seed"] = [seed_of(index) for index in range(rows)]
    return per_row(rows, lambda index: _row(stage, _at(sent, index), defaults, attribute_set))


def per_row(rows: int, parse: Callable[[int], T]) -> list[T]:
    """`parse(index)` for every row; an error says which row it is where there are several."""
    results = []
    for index in range(rows):
        try:
            results.append(parse(index))
        except InvalidInputError as error:
            if rows == 1:
                raise
            raise type(error)(f"row {index}: {error}") from error
    return results


def check_parameter_names(parameters: Collection[str], inputs: Collection[str] = ()) -> None:
    """Refuses unknown request parameters.

    Args:
        parameters: Their names.
        inputs: Inputs of the model, for the hint.

    Raises:
        InvalidOptionError: One is unknown.
    """
    for name in parameters:
        if name in OPTIONS_BY_NAME or name in (*_TRITON_PARAMETERS, ERROR_TAG) or name.startswith(_TRITON_PREFIXES):
            continue
        hint = did_you_mean(name, {**dict.fromkeys(inputs), **OPTIONS_BY_NAME})
        raise InvalidOptionError(f"parameter {name[:64]!r} is unknown: {hint}valid are {', '.join(OPTIONS_BY_NAME)}")


def _sent(stage: Stage, rows: int, tensors: Mapping[str, Array], parameters: Mapping[str, Any]) -> dict[str, list[Any]]:
    """One value per row for each of the stage's options that was sent."""
    sent: dict[str, list[Any]] = {}
    for option in (option for option in OPTIONS if stage in option.stages):
        values = _from_parameter(option, parameters[option.name], rows) if option.name in parameters else None
        if option.name in tensors:
            from_tensor = _from_tensor(option, tensors[option.name], rows)
            if values is not None and values != from_tensor:
                raise InvalidOptionError(
                    f"{option.name} came as input ({_shown(from_tensor)}) and as parameter ({_shown(values)}): send one"
                )
            values = from_tensor
        if values is not None:
            sent[option.name] = values
    return sent


def _check_options(stage: Stage, sent: Mapping[str, list[Any]], rows: int, defaults: SamplingOptions) -> None:
    per_row(rows, lambda index: _sampling_options(stage, _at(sent, index), defaults))


def _at(sent: Mapping[str, list[Any]], index: int) -> dict[str, Any]:
    """The values of one row."""
    return {name: values[index] for name, values in sent.items()}


def _row(
    stage: Stage, values: Mapping[str, Any], defaults: SamplingOptions, attribute_set: AttributeSet | None
) -> RowOptions:
    seed, priority = values["seed"], values.get("priority", 1)
    if not 0 <= seed <= MAX_SEED:
        raise InvalidOptionError(f"seed={seed}: must be between 0 and {MAX_SEED}")
    if not 0 <= priority <= MAX_PRIORITY:
        raise InvalidOptionError(f"priority={priority}: must be between 0 (first) and {MAX_PRIORITY} (last)")
    return RowOptions(
        seed=seed,
        priority=priority,
        options=_sampling_options(stage, values, defaults),
        attributes=_attributes(values, attribute_set),
        id_vector_model=values.get("id_vector_model"),
    )


def _attributes(values: Mapping[str, Any], attribute_set: AttributeSet | None) -> Array | None:
    """The attribute vector of a row, from numbers or from names."""
    vector, named = values.get("attributes"), values.get("attribute_values")
    if named is None:
        return None if vector is None else np.array(vector, dtype=np.float32)
    if vector is not None:
        raise InvalidOptionError("attributes and attribute_values are both given: send one or the other")
    if attribute_set is None:
        raise InvalidOptionError(f"attribute_values={named[:64]!r}: this bundle takes no attributes")
    return encode(parse_values(named), attribute_set)


def _sampling_options(stage: Stage, values: Mapping[str, Any], defaults: SamplingOptions) -> SamplingOptions:
    if "preset" in values:
        chosen = preset(values["preset"])
        defaults = chosen.base if stage == "base" else chosen.sr
    names = OPTION_NAMES[stage]
    changes = {field: values[name] for field, name in names.items() if name in values}
    # eta belongs to ddim: a bundle that defaults to ddim with noise must not spoil a request for another sampler.
    if changes.get("sampler", defaults.sampler) != defaults.sampler:
        changes.setdefault("eta", 0.0)
    chosen_values = {**vars(defaults), **changes}
    if (broken := broken_rule(chosen_values, names)) is not None:
        raise InvalidOptionError(broken)
    return SamplingOptions(**chosen_values)


def _from_tensor(option: Option, tensor: Array, rows: int) -> list[Any]:
    """One Python value per row: str, int, float, or a tuple of floats for a vector."""
    if tensor.ndim != 2 or len(tensor) != rows or option.length not in (-1, tensor.shape[1]):
        raise InvalidOptionError(f"{option.name} has shape {list(tensor.shape)}: expected {[rows, option.length]}")
    if option.length == -1:
        _check_length(option, tensor.shape[1])
        return [tuple(shortest_float(value) for value in row) for row in tensor]
    if option.dtype == "STRING":
        return [text(option.name, value) for value in tensor[:, 0]]
    convert = shortest_float if option.dtype == "FP32" else int
    return [convert(value) for value in tensor[:, 0]]


def _check_length(option: Option, length: int) -> None:
    """Checks the length before the numbers are read one by one, which takes microseconds each."""
    if length > MAX_VECTOR:
        raise InvalidOptionError(f"{option.name} has {length} numbers: at most {MAX_VECTOR} are allowed")


def _from_parameter(option: Option, value: Any, rows: int) -> list[Any]:
    """The same for a request parameter. Numbers may come as text, which is how headers and some clients send them."""
    most = MAX_TEXT if option.length == 1 else MAX_VECTOR * _LONGEST_NUMBER
    if isinstance(value, str) and len(value) > most:
        raise InvalidOptionError(f"{option.name} has {len(value)} characters: at most {most} are allowed")
    try:
        return [_scalar(option, value)] * rows
    except InvalidOptionError:  # which is a ValueError, too
        raise
    except (ValueError, TypeError, OverflowError, RecursionError):
        kind = "text" if option.dtype == "STRING" else "a number" if option.dtype == "FP32" else "a whole number"
        kind = kind if option.length == 1 else "a JSON list of numbers"
        raise InvalidOptionError(f"{option.name}={str(value)[:64]!r}: expected {kind}") from None


def _scalar(option: Option, value: Any) -> Any:
    if option.length == -1:  # a request parameter cannot be a list, so a vector comes as its JSON text
        numbers = json.loads(value)
        if not isinstance(numbers, list) or not all(type(number) in (int, float) for number in numbers):
            raise ValueError
        _check_length(option, len(numbers))
        return tuple(shortest_float(float(number)) for number in numbers)
    if isinstance(value, bool) or (option.dtype == "STRING" and not isinstance(value, str)):
        raise ValueError  # bool("false") is True, so true and false are accepted neither as numbers nor as text
    if option.dtype == "STRING":
        return value
    if isinstance(value, str) and not _is_plain(value):
        raise ValueError
    if option.dtype == "FP32":
        return shortest_float(float(value))
    if isinstance(value, float):
        raise ValueError
    return int(value)


def _is_plain(number: str) -> bool:
    """Whether a text is a number as JSON writes one: Python also takes 3_0, digits of other scripts and spaces."""
    return number.isascii() and not any(each.isspace() or each == "_" for each in number)


def _shown(values: list[Any]) -> str:
    return ", ".join(str(value)[:32] for value in dict.fromkeys(values[:4]))
