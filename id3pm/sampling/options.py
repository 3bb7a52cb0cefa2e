"""Sampling options of both stages by their public names, for callers in this process.

Over the wire the same names arrive as tensors or parameters and are parsed by `id3pm.serving`.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from id3pm.config import SamplingOptions, from_json, to_json
from id3pm.errors import ConfigError, InvalidOptionError
from id3pm.sampling.presets import preset

PRESET = "preset"
BASE_OPTIONS: Mapping[str, str] = {
    field.name: field.name for field in dataclasses.fields(SamplingOptions) if field.name != "consistency"
}
SR_OPTIONS: Mapping[str, str] = {f"sr_{name}": name for name in ("sampler", "steps", "spacing", "eta", "consistency")}

OTHER_NAMES: Mapping[str, str] = {
    "num_inference_steps": "steps",
    "inference_steps": "steps",
    "num_steps": "steps",
    "sampling_steps": "steps",
    "guidance": "guidance_scale",
    "cfg": "guidance_scale",
    "cfg_scale": "guidance_scale",
    "scheduler": "sampler",
    "sampler_name": "sampler",
    "generator": "seed",
    "random_seed": "seed",
    "id_vector": "embedding",
    "vector": "embedding",
    "face_embedding": "embedding",
    "image": "photo",
}
"""Names in other libraries (mainly diffusers) of options and inputs of this one."""


def did_you_mean(name: str, known: Collection[str]) -> str:
    """A hint for a message about an unknown name, `did you mean steps? `; empty if no known name is similar."""
    name = name[:64]
    other = OTHER_NAMES.get(name.lower().replace("-", "_"))
    close = [other] if other in known else difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}? " if close else ""


def both_stages(
    base: SamplingOptions, sr: SamplingOptions, given: Mapping[str, Any]
) -> tuple[SamplingOptions, SamplingOptions]:
    """The options of the 64 px stage and of super-resolution.

    Args:
        base: Defaults of the 64 px stage.
        sr: Defaults of super-resolution.
        given: The caller's options by public name: the keys of `BASE_OPTIONS` and `SR_OPTIONS`, and
            `preset`, whose options take the place of the defaults.

    Raises:
        InvalidOptionError: A name is unknown, or a value has the wrong type or is outside its range.
    """
    _check_names(given, (PRESET, *BASE_OPTIONS, *SR_OPTIONS))
    if (name := given.get(PRESET)) is not None:
        base, sr = preset(name).base, preset(name).sr
    return _with(base, given, BASE_OPTIONS), _with(sr, given, SR_OPTIONS)


def base_stage(base: SamplingOptions, given: Mapping[str, Any]) -> SamplingOptions:
    """The options of the 64 px stage without super-resolution.

    Args:
        base: Defaults.
        given: The caller's options: `preset` and the keys of `BASE_OPTIONS`.

    Raises:
        InvalidOptionError: As for `both_stages`; options of super-resolution are unknown here.
    """
    _check_names(given, (PRESET, *BASE_OPTIONS))
    if (name := given.get(PRESET)) is not None:
        base = preset(name).base
    return _with(base, given, BASE_OPTIONS)


def _check_names(given: Mapping[str, Any], known: tuple[str, ...]) -> None:
    if unknown := sorted(set(given) - set(known)):
        hint = did_you_mean(unknown[0], known)
        raise InvalidOptionError(
            f"unknown option {', '.join(unknown)}; {hint}choose from {', '.join((*known, 'attributes'))}"
        )


def _with(defaults: SamplingOptions, given: Mapping[str, Any], names: Mapping[str, str]) -> SamplingOptions:
    changes = {names[name]: _plain(value) for name, value in given.items() if name in names}
    if changes.get("sampler", defaults.sampler) != defaults.sampler:
        changes.setdefault("eta", 0.0)  # a default eta belongs to the default sampler
    try:
        return from_json(SamplingOptions, {**to_json(defaults), **changes})
    except ConfigError as error:
        raise InvalidOptionError(str(error)) from error


def _plain(value: Any) -> Any:
    """A number as it is after the wire: floats are rounded to FP32, so in process and served agree in bits."""
    if isinstance(value, np.generic):
        value = value.item()
    return float(str(np.float32(value))) if isinstance(value, float) else value
