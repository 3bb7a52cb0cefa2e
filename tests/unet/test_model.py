"""The U-Net is guided-diffusion's: golden values come from the original code (tests/golden/make_unet_golden.py)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from id3pm.config import UNET_PRESETS, UNetConfig
from id3pm.errors import CheckpointError, ConfigError, InvalidInputError
from id3pm.unet.layers import GroupNorm32, timestep_embedding
from id3pm.unet.model import UNet, expected_shapes, load_unet
from tests.golden.unet_cases import CASES, condition_shapes, inputs, shape_lines, weights

GOLDEN = Path(__file__).parents[1] / "golden"
FACTS: dict[str, Any] = json.loads((GOLDEN / "unet_golden.json").read_text())


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the networks are tiny
    yield
    torch.set_num_threads(threads)


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


@cache
def network(case: str) -> UNet:
    return load_unet(CASES[case], weights(expected_shapes(CASES[case])))


def evaluate(case: str, **changed: np.ndarray | None) -> np.ndarray:
    arrays = inputs(CASES[case]) | changed
    tensors = {key: torch.from_numpy(array) for key, array in arrays.items() if array is not None}
    with torch.no_grad():
        output: np.ndarray = network(case)(**tensors).numpy()
    return output


def without_conditions(config: UNetConfig) -> UNetConfig:
    return replace(config, identity_dim=None, attribute_dim=None)


@pytest.mark.parametrize("case", CASES)
def test_outputs_equal_the_original(case: str) -> None:
    expected = np.load(GOLDEN / "unet_golden.npz")[case]
    actual = evaluate(case)
    assert actual.dtype == np.float32
    assert actual.shape == expected.shape
    assert relative_error(actual, expected) <= 1e-5


@pytest.mark.parametrize("case", CASES)
def test_parameter_names_shapes_and_order_equal_the_original(case: str) -> None:
    config = CASES[case]
    shapes = expected_shapes(without_conditions(config))
    assert shape_lines(shapes) == FACTS["cases"][case]["shapes"]
    assert sum(p.numel() for p in UNet(without_conditions(config)).parameters()) == FACTS["cases"][case]["parameters"]
    assert expected_shapes(config).items() ^ shapes.items() == condition_shapes(config).items()


@pytest.mark.parametrize("case", CASES)
def test_fresh_network_has_the_zeros_of_the_original(case: str) -> None:
    unet = UNet(without_conditions(CASES[case]))
    zeros = [key for key, tensor in unet.state_dict().items() if not tensor.any()]
    assert zeros == FACTS["cases"][case]["zero_at_init"]


@pytest.mark.parametrize("preset", UNET_PRESETS)
def test_presets_have_every_tensor_of_table_2(preset: str) -> None:
    shapes = expected_shapes(without_conditions(UNET_PRESETS[preset]))
    lines = sorted(shape_lines(shapes))
    parameters = sum(int(np.prod(shape)) for shape in shapes.values())
    assert {
        "parameters": parameters,
        "tensors": len(lines),
        "sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
    } == FACTS["presets"][preset]
    millions = {"paper-base-64": 295.1, "paper-sr-256": 311.0}
    assert round(parameters / 1e6, 1) == millions[preset]


ID_VECTORS = hnp.arrays(np.float32, (2, 8), elements=st.floats(-2, 2, width=32))


@settings(max_examples=25, deadline=None)
@given(a=ID_VECTORS, b=ID_VECTORS)
def test_identity_changes_the_output_of_its_own_row_only(a: np.ndarray, b: np.ndarray) -> None:
    changed = np.abs(evaluate("conditioned", identity=a) - evaluate("conditioned", identity=b)).max(axis=(1, 2, 3))
    for row in range(2):
        distance = np.abs(a[row] - b[row]).max()
        if distance > 1e-2:
            assert changed[row] > 1e-5
        elif distance == 0:
            assert changed[row] <= 1e-6


@settings(max_examples=10, deadline=None)
@given(attributes=hnp.arrays(np.float32, (2, 5), elements=st.floats(0, 1, width=32)))
def test_every_valid_attribute_vector_differs_from_no_attributes(attributes: np.ndarray) -> None:
    difference = np.abs(evaluate("conditioned", attributes=attributes) - evaluate("conditioned", attributes=None))
    assert (difference.max(axis=(1, 2, 3)) > 1e-4).all()


def test_no_condition_is_the_zero_vector_and_the_minus_one_vector() -> None:
    zero, minus_one = np.zeros((2, 8), np.float32), np.full((2, 5), -1, np.float32)
    explicit = evaluate("conditioned", identity=zero, attributes=minus_one)
    assert np.array_equal(evaluate("conditioned", identity=None, attributes=None), explicit)
    assert not np.array_equal(evaluate("conditioned", identity=minus_one[:, [0] * 8], attributes=minus_one), explicit)


def test_integer_time_steps_are_the_same_as_floats() -> None:
    steps = np.array([0, 999])
    expected = evaluate("strided_conv", timesteps=steps.astype(np.float32))
    assert np.array_equal(evaluate("strided_conv", timesteps=steps), expected)


def test_odd_width_of_the_time_embedding_ends_in_a_zero() -> None:
    embedding = timestep_embedding(torch.tensor([5.0]), 7)
    assert embedding.shape == (1, 7)
    assert embedding[0, -1] == 0
    assert embedding[0, 0] == torch.tensor(5.0).cos()  # the highest frequency is 1


@pytest.mark.parametrize(
    ("case", "changed", "message"),
    [
        ("conditioned", {"identity": np.zeros((2, 9), np.float32)}, r"identity has shape \(2, 9\).*\[N, 8\]"),
        ("conditioned", {"attributes": np.zeros(5, np.float32)}, r"attributes has shape \(5,\).*\[N, 5\]"),
        ("strided_conv", {"identity": np.zeros((2, 8), np.float32)}, "takes no identity"),
        ("super_resolution", {"low_res": None}, r"low_res is None: this network takes \[N, 3, 4, 4\]"),
        ("super_resolution", {"low_res": np.zeros((2, 3, 8, 8), np.float32)}, r"low_res is \(2, 3, 8, 8\)"),
        ("strided_conv", {"low_res": np.zeros((2, 3, 4, 4), np.float32)}, "takes no low_res"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(case: str, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        evaluate(case, **changed)


def test_heads_that_do_not_divide_the_channels_are_refused() -> None:
    with pytest.raises(ConfigError, match="64 channels cannot be split into 3 heads"):
        UNet(replace(CASES["strided_conv"], num_heads=3))
    with pytest.raises(ConfigError, match="num_head_channels=48"):
        UNet(replace(CASES["strided_conv"], num_head_channels=48))


def test_group_norm_computes_in_float32_under_autocast() -> None:
    norm = GroupNorm32(32)
    x = (1000 + torch.randn(1, 32, 8, 8, generator=torch.Generator().manual_seed(0))).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        actual = norm(x)
    assert actual.dtype == torch.bfloat16
    assert torch.equal(actual, norm(x.float()).bfloat16())


def test_bf16_autocast_stays_near_float32() -> None:
    arrays = {key: torch.from_numpy(array) for key, array in inputs(CASES["new_order_updown"]).items()}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        half = network("new_order_updown")(**arrays).float().numpy()
    assert relative_error(half, evaluate("new_order_updown")) < 0.03


def test_gradient_checkpointing_changes_no_gradient() -> None:
    config = replace(CASES["conditioned"], dropout=0.1)
    arrays = {key: torch.from_numpy(array) for key, array in inputs(config).items()}
    gradients = []
    for checkpointing in (False, True):
        unet = UNet(config, gradient_checkpointing=checkpointing)
        state = {key: torch.from_numpy(array) for key, array in weights(expected_shapes(config)).items()}
        unet.load_state_dict(state)
        torch.manual_seed(1)
        unet.train()(**arrays).square().mean().backward()
        gradients.append([parameter.grad for parameter in unet.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert plain is not None
        assert torch.allclose(plain, recomputed, rtol=1e-4, atol=1e-7)


def test_loaded_network_is_in_evaluation_mode_and_owns_its_weights() -> None:
    config = CASES["four_levels"]
    arrays = weights(expected_shapes(config))
    unet = load_unet(config, arrays)
    before = unet.out[2].weight.clone()
    arrays["out.2.weight"][:] = 0
    assert not unet.training
    assert torch.equal(unet.out[2].weight, before)
    assert all(parameter.requires_grad for parameter in unet.parameters())


def test_loading_refuses_weights_of_another_architecture() -> None:
    with pytest.raises(CheckpointError, match="unknown"):
        load_unet(CASES["strided_conv"], weights(expected_shapes(CASES["new_order_updown"])))


def test_fewer_norm_groups_let_a_narrow_network_pass_the_mean_of_its_input() -> None:
    means = {}
    for groups in (32, 8):
        config = UNetConfig(
            image_size=8,
            num_channels=32,
            num_res_blocks=1,
            channel_mult=(1,),
            attention_resolutions=(),
            norm_groups=groups,
        )
        torch.manual_seed(0)
        out = UNet(config).out[0]
        x = torch.randn(1, 32, 8, 8)
        raised = x + torch.arange(32.0)[None, :, None, None]
        with torch.no_grad():
            means[groups] = (out(raised) - out(x)).mean(dim=(2, 3)).abs().max().item()
    assert means[32] < 1e-5 < 0.1 < means[8]
