"""Weights in any number format become float32, or a `BundleError` that names the tensor."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from id3pm.errors import BundleError
from id3pm.formats.bundle import load_weights, verify, weights_hash
from id3pm.formats.weights import FORMATS, read_weights
from tests.tiny_bundle import write_tiny_bundle

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


def every_number(dtype: torch.dtype) -> torch.Tensor:
    """All finite numbers of the format, or for large formats many."""
    if dtype.itemsize == 1:
        values = torch.arange(256, dtype=torch.uint8).view(dtype)
    elif dtype.itemsize == 2:
        values = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype)
    else:
        values = torch.randn(1000, dtype=dtype)
    return values[values.float().isfinite()]


@pytest.mark.parametrize("name", FORMATS)
def test_every_number_of_a_format_is_read_as_torch_reads_it(tmp_path: Path, name: str) -> None:
    stored = {"other": torch.zeros(3), "scalar": torch.tensor(1.5).to(DTYPES[name]), "all": every_number(DTYPES[name])}
    save_file(stored, tmp_path / "w.safetensors")
    read = read_weights(tmp_path / "w.safetensors")
    assert {array.dtype for array in read.values()} == {np.dtype(np.float32)}
    for key, tensor in stored.items():
        assert read[key].shape == tuple(tensor.shape)
        np.testing.assert_array_equal(read[key], tensor.float().numpy())


@pytest.mark.parametrize("tensor", [torch.zeros(2, dtype=torch.int64), torch.zeros(2, 2).to(torch.float8_e4m3fnuz)])
def test_another_format_is_refused_by_name(tmp_path: Path, tensor: torch.Tensor) -> None:
    save_file({"a.weight": tensor}, tmp_path / "w.safetensors")
    with pytest.raises(BundleError, match=r"w\.safetensors: a\.weight is stored as \S+: need one of F64, F32"):
        read_weights(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
)
def test_nan_is_refused_by_name(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.ones(4)
    tensor[2] = torch.nan
    save_file({"fine": torch.ones(2), "a.weight": tensor.to(dtype)}, tmp_path / "w.safetensors")
    with pytest.raises(BundleError, match=r"w\.safetensors: a\.weight holds NaN or infinity \(1 of 4 numbers\)"):
        read_weights(tmp_path / "w.safetensors")


def saved_again(folder: Path, dtype: torch.dtype, damage: float | None = None) -> None:
    """The bundle's base weights in another number format, as a user saves them, with the hash of the new file."""
    tensors = {key: torch.from_numpy(array).to(dtype) for key, array in load_weights(folder, "base").items()}
    if damage is not None:
        tensors["out.2.bias"][0] = damage
    save_file(tensors, folder / "base.safetensors")
    description = json.loads((folder / "bundle.json").read_text())
    description["weights_sha256"]["base"] = weights_hash(folder, "base")
    (folder / "bundle.json").write_text(json.dumps(description))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_a_bundle_saved_again_in_another_format_is_a_bundle(tmp_path: Path, dtype: torch.dtype) -> None:
    write_tiny_bundle(tmp_path)
    before = load_weights(tmp_path, "base")
    saved_again(tmp_path, dtype)
    verify(tmp_path)
    for key, array in load_weights(tmp_path, "base").items():
        np.testing.assert_array_equal(array, torch.from_numpy(before[key]).to(dtype).float().numpy())


def test_a_bundle_with_nan_is_refused_everywhere(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path)
    saved_again(tmp_path, torch.float32, damage=float("nan"))
    for read in (verify, lambda folder: load_weights(folder, "base")):
        with pytest.raises(BundleError, match=r"base\.safetensors: out\.2\.bias holds NaN"):
            read(tmp_path)
