from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from id3pm.errors import CheckpointError
from id3pm.unet.checkpoint import check_keys, expected_shapes, read_checkpoint
from tests.golden.unet_cases import CASES, weights

CONFIG = CASES["conditioned"]


def saved(path: Path, state: Any, **options: Any) -> Path:
    torch.save(state, path, **options)
    return path


def state() -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(array) for key, array in weights(expected_shapes(CONFIG)).items()}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_checkpoint_reads_back_exactly(tmp_path: Path, zipped: bool) -> None:
    path = saved(tmp_path / "ema_0.9999_100000.pt", state(), _use_new_zipfile_serialization=zipped)
    tensors = read_checkpoint(path)
    assert {key: array.shape for key, array in tensors.items()} == expected_shapes(CONFIG)
    assert all(np.array_equal(tensors[key], array) for key, array in weights(expected_shapes(CONFIG)).items())
    check_keys(CONFIG, tensors)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_half_precision_becomes_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    half = {key: tensor.to(dtype) for key, tensor in state().items()}
    tensors = read_checkpoint(saved(tmp_path / "model.pt", half))
    for key, tensor in half.items():
        assert tensors[key].dtype == np.float32
        assert np.array_equal(tensors[key], tensor.float().numpy())


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def test_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    target = tmp_path / "executed"
    path = saved(tmp_path / "model.pt", {"out.0.weight": Bomb(target)})
    with pytest.raises(CheckpointError, match=r"model\.pt holds Python objects \(\S+\).*: it is refused") as error:
        read_checkpoint(path)
    assert "weights_only" not in str(error.value), "torch's text advises to switch the protection off"
    assert not target.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a checkpoint",
        pickle.dumps("text", protocol=2)[:-3],
        b"PK\x03\x04 half a zip",
        b"version https://git-lfs\n",
    ],
    ids=["empty", "text", "cut pickle", "cut zip", "lfs pointer"],
)
def test_damaged_file_is_a_checkpoint_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.pt \(\d+ bytes\) is no PyTorch checkpoint, or is damaged"):
        read_checkpoint(path)


def test_truncated_checkpoint_is_a_checkpoint_error(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.pt", state())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match=r"model\.pt \(\d+ bytes\) is no PyTorch checkpoint, or is damaged"):
        read_checkpoint(path)


def test_missing_file_is_a_checkpoint_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint 'model\.pt'"):
        read_checkpoint(tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state": {}, "param_groups": []}, "state, param_groups are not tensors.*optimiser"),
        ([torch.zeros(1)], "holds a list"),
        ({}, "holds a dict"),
    ],
)
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(saved(tmp_path / "opt100000.pt", content))


@pytest.mark.parametrize(
    ("wrap", "taken"),
    [
        ("module.{}", "module."),
        ("_orig_mod.{}", "_orig_mod."),
        ("module._orig_mod.{}", "module., _orig_mod."),
        ("_orig_mod.module.{}", "module., _orig_mod."),
        ("module.module.{}", "module."),
        ("_fsdp_wrapped_module.{}", "_fsdp_wrapped_module."),
    ],
)
def test_what_wrappers_add_to_every_key_is_taken_off_and_said(tmp_path: Path, wrap: str, taken: str) -> None:
    path = saved(tmp_path / "model.pt", {wrap.format(key): tensor for key, tensor in state().items()})
    said: list[str] = []
    check_keys(CONFIG, read_checkpoint(path, report=said.append))
    assert said == [f"model.pt: took {taken} off the keys"]
    check_keys(CONFIG, read_checkpoint(path, {wrap.format(""): ""}))
    foreign = {wrap.format(key.replace("identity_embed.", "id_mlp.")): value for key, value in state().items()}
    path = saved(tmp_path / "foreign.pt", foreign)
    for old in ("id_mlp.", wrap.format("id_mlp.")):
        check_keys(CONFIG, read_checkpoint(path, {old: "identity_embed."}))


def test_blocks_compiled_one_by_one_are_read(tmp_path: Path) -> None:
    block = "input_blocks.0."
    compiled = {key.replace(block, block + "_orig_mod."): tensor for key, tensor in state().items()}
    check_keys(CONFIG, read_checkpoint(saved(tmp_path / "model.pt", compiled)))
    twice = {**state(), "_orig_mod.out.2.bias": torch.zeros(6)}
    with pytest.raises(CheckpointError, match="keys are the same without _orig_mod"):
        read_checkpoint(saved(tmp_path / "twice.pt", twice))


def test_the_state_of_a_real_wrapper_is_read(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 2))
    averaged = torch.optim.swa_utils.AveragedModel(network)
    said: list[str] = []
    read = read_checkpoint(saved(tmp_path / "ema.pt", averaged.state_dict()), report=said.append)
    assert {key: value.shape for key, value in read.items()} == {"0.weight": (2, 2), "0.bias": (2,)}
    assert "n_averaged" in said[0] and "took module. off" in said[1]


def test_parameters_that_still_want_gradients_are_read(tmp_path: Path) -> None:
    parameters = {key: torch.nn.Parameter(tensor) for key, tensor in state().items()}
    check_keys(CONFIG, read_checkpoint(saved(tmp_path / "model.pt", parameters)))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_no_numbers_are_refused_by_name(tmp_path: Path, value: float) -> None:
    tensors = state()
    tensors["out.2.bias"][1] = value
    with pytest.raises(CheckpointError, match=r"model\.pt: out\.2\.bias holds NaN or infinity \(1 of 6 numbers\)"):
        read_checkpoint(saved(tmp_path / "model.pt", tensors))


def test_tensors_that_are_no_weights_are_refused_by_name(tmp_path: Path) -> None:
    for tensor, kind in ((torch.zeros(2, dtype=torch.int8), "int8"), (torch.zeros(2).to_sparse(), "sparse")):
        with pytest.raises(CheckpointError, match=f"out.2.bias is .*{kind}"):
            read_checkpoint(saved(tmp_path / "model.pt", {**state(), "out.2.bias": tensor}))


def test_a_state_dict_inside_a_checkpoint_is_pointed_to(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"more than one state dict \(model, ema\).*\['model'\]"):
        read_checkpoint(saved(tmp_path / "all.pt", {"model": state(), "ema": state(), "step": 3}))


def test_wrong_keys_are_counted_and_the_first_named() -> None:
    tensors = weights(expected_shapes(CONFIG))
    missing = [key for key in tensors if key.startswith("identity_embed.")]
    for key in missing:
        del tensors[key]
    tensors["label_emb.weight"] = np.zeros((1000, 128), np.float32)
    tensors["out.2.bias"] = np.zeros(3, np.float32)
    with pytest.raises(CheckpointError) as error:
        check_keys(CONFIG, tensors)
    message = str(error.value)
    assert len(missing) == 4
    assert all(key in message for key in missing)
    assert "label_emb.weight (1000, 128)" in message
    assert "out.2.bias: the checkpoint has (3,), the architecture (6,)" in message
    assert "4 are missing and 1 have another shape; 1 are unknown" in message
    assert "time_embed" not in message


def test_layers_that_are_called_otherwise_are_renamed(tmp_path: Path) -> None:
    foreign = {key.replace("identity_embed.", "id_mlp."): tensor for key, tensor in state().items()}
    path = saved(tmp_path / "model.pt", foreign)
    check_keys(CONFIG, read_checkpoint(path, {"id_mlp.": "identity_embed."}))
    check_keys(
        CONFIG, read_checkpoint(saved(tmp_path / "net.pt", {f"net.{k}": v for k, v in state().items()}), {"net.": ""})
    )
    with pytest.raises(CheckpointError, match="no key that begins with 'no_such.'"):
        read_checkpoint(path, {"no_such.": "identity_embed."})
    with pytest.raises(CheckpointError, match="already has keys that begin with 'attribute_embed.'"):
        read_checkpoint(path, {"id_mlp.": "attribute_embed."})
