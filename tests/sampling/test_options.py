from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from id3pm.config import PAPER_BASE_SAMPLING, PAPER_SR_SAMPLING, SamplingOptions
from id3pm.errors import InvalidOptionError
from id3pm.sampling.options import base_stage, both_stages
from id3pm.sampling.presets import PRESETS


def test_nothing_given_means_the_defaults() -> None:
    assert both_stages(PAPER_BASE_SAMPLING, PAPER_SR_SAMPLING, {}) == (PAPER_BASE_SAMPLING, PAPER_SR_SAMPLING)


def test_each_option_reaches_its_stage_only() -> None:
    given = {"steps": 10, "sampler": "ddim", "eta": 0.5, "sr_steps": np.int32(7), "sr_sampler": "dpmpp_2m"}
    base, sr = both_stages(PAPER_BASE_SAMPLING, PAPER_SR_SAMPLING, given)
    assert base == SamplingOptions(steps=10, sampler="ddim", eta=0.5)
    assert sr == SamplingOptions(steps=7, sampler="dpmpp_2m", guidance_scale=1.0, dynamic_threshold=0.0)


def test_floats_are_what_the_wire_would_make_of_them() -> None:
    base, _ = both_stages(PAPER_BASE_SAMPLING, PAPER_SR_SAMPLING, {"dynamic_threshold": 0.9, "guidance_scale": 4 / 3})
    assert base.dynamic_threshold == 0.9
    assert base.guidance_scale == 1.3333334


def test_default_eta_belongs_to_the_default_sampler() -> None:
    defaults = SamplingOptions(sampler="ddim", eta=0.5)
    assert both_stages(defaults, PAPER_SR_SAMPLING, {"sampler": "ddpm"})[0].eta == 0.0
    assert both_stages(defaults, PAPER_SR_SAMPLING, {"steps": 3})[0].eta == 0.5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stepz": 10}, r"unknown option stepz; did you mean steps\? choose from preset, sampler, steps"),
        ({"sr_guidance_scale": 2.0}, "unknown option sr_guidance_scale"),
        ({"steps": 0}, "steps=0"),
        ({"steps": "10"}, "steps='10'"),
        ({"steps": 10.5}, "steps=10.5"),
        ({"sampler": "euler"}, "sampler='euler'"),
        ({"guidance_scale": float("nan")}, "guidance_scale=nan"),
        ({"eta": 0.5}, "eta belongs to ddim"),
    ],
)
def test_wrong_option_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        both_stages(PAPER_BASE_SAMPLING, PAPER_SR_SAMPLING, given)


def test_a_preset_takes_the_place_of_the_defaults_and_what_is_given_beside_it_wins() -> None:
    defaults = SamplingOptions(sampler="dpmpp_2m", steps=3), SamplingOptions(sampler="dpmpp_2m", steps=4)
    fast = PRESETS["fast"]
    assert both_stages(*defaults, {"preset": "fast"}) == (fast.base, fast.sr)
    base, sr = both_stages(*defaults, {"preset": "fast", "steps": 17, "sr_spacing": "logsnr"})
    assert base == dataclasses.replace(fast.base, steps=17)
    assert sr == dataclasses.replace(fast.sr, spacing="logsnr")
    assert base_stage(defaults[0], {"preset": "paper"}) == PAPER_BASE_SAMPLING
    with pytest.raises(InvalidOptionError, match="preset='slow': choose one of paper, balanced, fast"):
        both_stages(*defaults, {"preset": "slow"})
