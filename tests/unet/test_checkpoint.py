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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
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


def test_all_wrong_keys_are_listed() -> None:
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
    with pytest.raises(CheckpointError, match="no key that begins with 'no_such.'"):
        read_checkpoint(path, {"no_such.": "identity_embed."})
    with pytest.raises(CheckpointError, match="already has keys that begin with 'attribute_embed.'"):
        read_checkpoint(path, {"id_mlp.": "attribute_embed."})
