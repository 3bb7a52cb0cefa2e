"""Presets: the paper's sampling options, and faster ones measured against them (docs/sampling.md)."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping

from id3pm.config import PAPER_BASE_SAMPLING, PAPER_SR_SAMPLING, SamplingOptions
from id3pm.errors import InvalidOptionError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """The options of both stages."""

    base: SamplingOptions
    sr: SamplingOptions


def _ddim(base_steps: int, sr_steps: int) -> Preset:
    # eta 1: fresh noise at every step corrects what the network got wrong at the one before.
    return Preset(
        base=dataclasses.replace(PAPER_BASE_SAMPLING, sampler="ddim", eta=1.0, steps=base_steps, spacing="logsnr"),
        sr=dataclasses.replace(PAPER_SR_SAMPLING, sampler="ddim", eta=1.0, steps=sr_steps, consistency=1.0),
    )


PRESETS: Mapping[str, Preset] = types.MappingProxyType(
    {
        "paper": Preset(base=PAPER_BASE_SAMPLING, sr=PAPER_SR_SAMPLING),
        "balanced": _ddim(base_steps=25, sr_steps=15),
        "fast": _ddim(base_steps=8, sr_steps=6),
    }
)


def preset(name: object) -> Preset:
    """The preset of this name.

    Raises:
        InvalidOptionError: There is none.
    """
    if not isinstance(name, str) or name not in PRESETS:
        raise InvalidOptionError(f"preset={str(name)[:64]!r}: choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
