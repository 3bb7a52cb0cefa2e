from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from id3pm.config import (
    PAPER_BASE_64,
    PAPER_BASE_DIFFUSION,
    PAPER_BASE_SAMPLING,
    PAPER_SR_256,
    PAPER_SR_DIFFUSION,
    PAPER_SR_SAMPLING,
    DiffusionConfig,
    SamplingOptions,
    UNetConfig,
    from_json,
    to_json,
)
from id3pm.errors import ConfigError, Id3pmError, InvalidInputError, InvalidOptionError

OPTIONAL_COUNT = st.none() | st.integers(1, 64)
UNETS = st.builds(
    UNetConfig,
    image_size=st.sampled_from([32, 64]),
    num_channels=st.sampled_from([64, 128]),
    num_res_blocks=st.integers(1, 4),
    channel_mult=st.lists(st.sampled_from([0.5, 1, 1.5, 2]), min_size=1, max_size=4).map(tuple),
    attention_resolutions=st.lists(st.sampled_from([8, 16, 32])).map(tuple),
    num_heads=st.integers(1, 8),
    num_head_channels=OPTIONAL_COUNT,
    num_heads_upsample=OPTIONAL_COUNT,
    dropout=st.floats(0, 0.99),
    learn_sigma=st.booleans(),
    resblock_updown=st.booleans(),
    conv_resample=st.booleans(),
    use_scale_shift_norm=st.booleans(),
    use_new_attention_order=st.booleans(),
    identity_dim=OPTIONAL_COUNT,
    attribute_dim=OPTIONAL_COUNT,
    low_res_size=OPTIONAL_COUNT,
)


@given(config=UNETS)
def test_architecture_survives_json(config: UNetConfig) -> None:
    assert from_json(UNetConfig, json.loads(json.dumps(to_json(config)))) == config


@pytest.mark.parametrize(
    "config",
    [
        PAPER_BASE_64,
        PAPER_SR_256,
        PAPER_BASE_DIFFUSION,
        PAPER_SR_DIFFUSION,
        PAPER_BASE_SAMPLING,
        PAPER_SR_SAMPLING,
        SamplingOptions(sampler="ddim", eta=1, steps=1, guidance_scale=1),
    ],
)
def test_presets_survive_json(config: Any) -> None:
    assert from_json(type(config), json.loads(json.dumps(to_json(config)))) == config


def test_presets_are_table_2_of_the_supplement() -> None:
    shared = {
        "num_channels": 192,
        "attention_resolutions": (32, 16, 8),
        "learn_sigma": True,
        "resblock_updown": True,
        "use_scale_shift_norm": True,
        "num_head_channels": None,
        "num_heads_upsample": None,
        "attribute_dim": None,
    }
    base = {"image_size": 64, "num_heads": 3, "num_res_blocks": 3, "channel_mult": (1, 2, 3, 4), "dropout": 0.1}
    sr = {"image_size": 256, "num_heads": 4, "num_res_blocks": 2, "channel_mult": (1, 1, 2, 2, 4, 4), "dropout": 0.0}
    base |= {"use_new_attention_order": True, "low_res_size": None, "identity_dim": 512}
    sr |= {"use_new_attention_order": False, "low_res_size": 64, "identity_dim": None}
    for config, row in ((PAPER_BASE_64, shared | base), (PAPER_SR_256, shared | sr)):
        assert {name: getattr(config, name) for name in row} == row
    assert DiffusionConfig(diffusion_steps=1000, noise_schedule="cosine") == PAPER_BASE_DIFFUSION
    assert DiffusionConfig(diffusion_steps=1000, noise_schedule="linear") == PAPER_SR_DIFFUSION
    assert (PAPER_BASE_SAMPLING.sampler, PAPER_BASE_SAMPLING.steps) == ("ddpm", 250)
    assert (PAPER_BASE_SAMPLING.guidance_scale, PAPER_BASE_SAMPLING.dynamic_threshold) == (2.0, 0.99)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 0}, "image_size=0"),
        ({"image_size": 60}, "image_size=60: must be a multiple of 8"),
        ({"num_channels": 100}, "channel_mult 1 x num_channels 100"),
        ({"num_res_blocks": 0}, "num_res_blocks=0"),
        ({"channel_mult": ()}, "channel_mult is empty"),
        ({"channel_mult": (0.1, 1)}, "channel_mult 0.1"),
        ({"attention_resolutions": (24,)}, "attention_resolutions has 24"),
        ({"num_head_channels": 0}, "num_head_channels=0"),
        ({"identity_dim": -1}, "identity_dim=-1"),
        ({"dropout": 1.0}, "dropout=1.0"),
    ],
)
def test_impossible_architectures_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(PAPER_BASE_64, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampler": "euler"}, "sampler='euler': choose one of ddpm, ddim, dpmpp_2m"),
        ({"steps": 0}, "steps=0"),
        ({"steps": 1001}, "steps=1001"),
        ({"guidance_scale": float("nan")}, "guidance_scale=nan"),
        ({"guidance_scale": 0.9}, r"guidance_scale=0\.9: must be between 1 \(off\) and 10"),
        ({"guidance_scale": 10.1}, "guidance_scale=10.1"),
        ({"guidance_low": 5, "guidance_high": 4}, "need 0 <= low <= high"),
        ({"dynamic_threshold": 1.5}, "dynamic_threshold=1.5"),
        ({"eta": 0.5}, "eta belongs to ddim"),
        ({"sampler": "ddim", "eta": 2.0}, "eta=2.0"),
        ({"consistency": 1.5}, "consistency=1.5"),
    ],
)
def test_options_outside_their_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOptionError, match=message):
        SamplingOptions(**changes)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"diffusion_step": 10}, "DiffusionConfig has no diffusion_step; it has diffusion_steps, noise_schedule"),
        ({"diffusion_steps": "10"}, "diffusion_steps='10': expected int"),
        ({"diffusion_steps": 10.0}, "diffusion_steps=10.0: expected int"),
        ({"diffusion_steps": True}, "diffusion_steps=True: expected int"),
        ({"rescale_timesteps": 1}, "rescale_timesteps=1: expected bool"),
        ({"noise_schedule": "sqrt"}, "noise_schedule='sqrt'"),
        ({"noise_schedule": None}, "noise_schedule=None"),
        ({"diffusion_steps": 0}, "diffusion_steps=0: must be at least 1"),
        ([], "expected a JSON object, got list"),
        (None, "expected a JSON object, got NoneType"),
    ],
)
def test_wrong_json_is_refused(data: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_json(DiffusionConfig, data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channel_mult": [1, "2"]}, "channel_mult='2': expected float"),
        ({"channel_mult": 2}, "channel_mult=2"),
        ({"attention_resolutions": [8.5]}, "attention_resolutions=8.5: expected int"),
        ({"identity_dim": "512"}, "identity_dim='512': expected int or NoneType"),
    ],
)
def test_wrong_element_or_type_in_json_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_json(UNetConfig, to_json(PAPER_BASE_64) | changes)


def test_missing_keys_are_listed() -> None:
    with pytest.raises(ConfigError, match="UNetConfig needs attention_resolutions, channel_mult, num_channels"):
        from_json(UNetConfig, {"image_size": 64, "num_res_blocks": 1})


@dataclass(frozen=True)
class Pair:
    unet: UNetConfig
    options: SamplingOptions = SamplingOptions()


def test_nested_configurations_survive_json_and_name_the_place_of_an_error() -> None:
    pair = Pair(PAPER_BASE_64, SamplingOptions(steps=3))
    data = json.loads(json.dumps(to_json(pair)))
    assert from_json(Pair, data) == pair
    assert from_json(Pair, {"unet": to_json(PAPER_BASE_64)}) == Pair(PAPER_BASE_64)
    with pytest.raises(ConfigError, match="options: steps=0"):
        from_json(Pair, data | {"options": {"steps": 0}})
    with pytest.raises(ConfigError, match="unet: UNetConfig has no depth"):
        from_json(Pair, data | {"unet": {"depth": 3}})


def test_configuration_errors_are_value_errors() -> None:
    for error in (ConfigError, InvalidOptionError):
        assert issubclass(error, ValueError)
        assert issubclass(error, Id3pmError)
    assert issubclass(InvalidOptionError, InvalidInputError)


def test_network_at_another_size_keeps_its_attention_at_the_same_depth() -> None:
    quarter = PAPER_SR_256.at_size(64)
    assert (quarter.image_size, quarter.low_res_size, quarter.attention_resolutions) == (64, 16, (8, 4, 2))
    assert quarter.at_size(256) == PAPER_SR_256
    with pytest.raises(ConfigError, match="image_size=100"):
        PAPER_SR_256.at_size(100)
