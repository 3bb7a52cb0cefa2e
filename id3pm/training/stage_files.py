"""The JSON description of a stage for `id3pm convert`, with the keys of bundle.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from id3pm.config import (
    PAPER_BASE_64,
    PAPER_BASE_DIFFUSION,
    PAPER_SR_256,
    PAPER_SR_DIFFUSION,
    PAPER_SR_SAMPLING,
    DiffusionConfig,
    SamplingOptions,
    UNetConfig,
    from_json,
)
from id3pm.errors import ConfigError
from id3pm.formats.bundle import BUNDLE_KEYS
from id3pm.formats.json_files import parse_json


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One stage of a bundle, without its weights.

    Attributes:
        unet: The architecture.
        diffusion: The noising process it was trained with.
        sampling: Default sampling options of the stage.
    """

    unet: UNetConfig
    diffusion: DiffusionConfig
    sampling: SamplingOptions = field(default_factory=SamplingOptions)


PRESETS: Mapping[str, StageConfig] = MappingProxyType(
    {
        "paper-base-64": StageConfig(unet=PAPER_BASE_64, diffusion=PAPER_BASE_DIFFUSION),
        "paper-sr-256": StageConfig(unet=PAPER_SR_256, diffusion=PAPER_SR_DIFFUSION, sampling=PAPER_SR_SAMPLING),
    }
)
KEYS = {
    "base": ("base", "base_diffusion", "sampling"),
    "sr": ("sr", "sr_diffusion", "sr_sampling"),
}
"""Architecture, noising process and sampling defaults of a stage in bundle.json; the last may be missing."""
EXAMPLE = """\
{
  "base": {
    "image_size": 64, "num_channels": 192, "num_res_blocks": 3, "channel_mult": [1, 2, 3, 4],
    "attention_resolutions": [32, 16, 8], "num_heads": 3, "resblock_updown": true,
    "use_new_attention_order": true, "identity_dim": 512
  },
  "base_diffusion": {"diffusion_steps": 1000, "noise_schedule": "cosine"},
  "sampling": {"steps": 250, "guidance_scale": 2.0}
}
"""
"""A file for `--base-config`: the paper's base network."""


def read_stage(file: Path, stage: Literal["base", "sr"]) -> StageConfig:
    """One stage of a JSON file; a whole bundle.json will do, for either stage.

    Raises:
        ConfigError: It is not JSON, or a key is unknown or missing, or a value is not allowed.
    """
    try:
        data = parse_json(file.read_bytes(), file.name)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    architecture, diffusion, sampling = KEYS[stage]
    if not isinstance(data, dict):
        raise ConfigError(f"{file.name} holds a {type(data).__name__}: {_form(stage)}")
    if unknown := sorted(set(data) - BUNDLE_KEYS):
        raise ConfigError(f"{file.name} has {', '.join(unknown)}: {_form(stage)}")
    if missing := [key for key in (architecture, diffusion) if key not in data]:
        raise ConfigError(f"{file.name} has no {' and no '.join(missing)}: {_form(stage)}")
    parts: dict[str, Any] = {"unet": data[architecture], "diffusion": data[diffusion]}
    if sampling in data:
        parts["sampling"] = data[sampling]
    try:
        return from_json(StageConfig, parts)
    except ValueError as error:
        raise ConfigError(f"{file.name}: {_renamed(str(error), stage)}") from error


def _form(stage: Literal["base", "sr"]) -> str:
    architecture, diffusion, sampling = KEYS[stage]
    return (
        f"need an object with {architecture!r} (the architecture), {diffusion!r} and, if wanted, {sampling!r}, as "
        "bundle.json has them; id3pm convert --help shows one"
    )


def _renamed(message: str, stage: Literal["base", "sr"]) -> str:
    """A message about a `StageConfig` with the keys of the file."""
    for name, key in zip(("unet", "diffusion", "sampling"), KEYS[stage], strict=True):
        if message.startswith(f"{name}: "):
            return f"{key}: {message.removeprefix(f'{name}: ')}"
    return message
