"""Training in half precision divides the network where an engine does, and where `use_fp16` does."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from tiny_training import TINY_BASE, TINY_SR, face_arrays
from torch import Tensor, nn

from id3pm.training.data import make_batches
from id3pm.training.half_precision import keep_fp32
from id3pm.training.initial_weights import build
from id3pm.training.loop import Trainer
from id3pm.training.presets import TrainConfig
from id3pm.unet.model import UNet

BASE = dataclasses.replace(
    TINY_BASE, unet=dataclasses.replace(TINY_BASE.unet, dropout=0.0, attribute_dim=7), attribute_set="landmarks"
)


def outputs(unet: UNet, config: TrainConfig) -> dict[str, Tensor]:
    """What every layer gives for the same input, by name."""
    found: dict[str, Tensor] = {}
    for name, layer in unet.named_modules():
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear | nn.GroupNorm):
            layer.register_forward_hook(lambda _, given, out, name=name: found.update({name: out}))  # type: ignore[misc]
    rng, size = torch.Generator().manual_seed(0), config.train_size
    given = {"identity": torch.randn(2, 8, generator=rng), "attributes": torch.rand(2, 7, generator=rng)}
    if config.stage == "sr":
        given = {"low_res": torch.rand(2, 3, config.train_unet.low_res_size or 0, 4, generator=rng)}
    found["the network"] = unet(torch.randn(2, 3, size, size, generator=rng), torch.tensor([10, 900]), **given)
    return found


@pytest.mark.parametrize("config", [BASE, TINY_SR])
def test_autocast_divides_the_network_as_its_conversion_does(config: TrainConfig) -> None:
    trained, converted = build(config), build(config)
    with torch.no_grad():
        for unet in (trained, converted):
            last = unet.out[-1].weight  # zero at the start
            last.copy_(torch.randn(last.shape, generator=torch.Generator().manual_seed(1)))
    keep_fp32(trained)
    converted.convert(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        made = outputs(copy.deepcopy(trained), config)
    expected = outputs(converted, config)
    assert {name: out.dtype for name, out in made.items()} == {name: out.dtype for name, out in expected.items()}
    assert {out.dtype for out in made.values()} == {torch.float32, torch.bfloat16}
    torch.testing.assert_close(made["the network"], expected["the network"], rtol=0.05, atol=0.05)


def test_a_copy_of_a_network_computes_with_its_own_weights() -> None:
    unet = build(BASE)
    keep_fp32(unet)
    other = copy.deepcopy(unet)
    with torch.no_grad():
        other.out[-1].bias.fill_(3.0)
    assert outputs(unet, BASE)["the network"].eq(0.0).all() and outputs(other, BASE)["the network"].eq(3.0).all()


def test_losses_in_half_precision_are_those_of_fp32_within_rounding(tmp_path: Path) -> None:
    losses = {}
    for precision in ("no", "bf16"):
        AcceleratorState._reset_state(reset_partial_state=True)  # the precision is the process's otherwise
        config = dataclasses.replace(
            TINY_BASE, unet=dataclasses.replace(TINY_BASE.unet, dropout=0.0), precision=precision
        )
        accelerator = Accelerator(cpu=True, mixed_precision=precision)
        trainer = Trainer(config, make_batches(config, face_arrays()), tmp_path, {}, accelerator)
        losses[precision] = [trainer.train_step()["loss"] for _ in range(12)]
        assert {parameter.dtype for parameter in trainer.unet.parameters()} == {torch.float32}
    AcceleratorState._reset_state(reset_partial_state=True)
    assert losses["bf16"] == pytest.approx(losses["no"], rel=0.02)
    assert losses["bf16"] != losses["no"]
