from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from id3pm.config import DiffusionConfig, SamplingOptions, UNetConfig
from id3pm.errors import BundleError, ConfigError
from id3pm.formats.arrays import read_arrays, write_arrays
from id3pm.formats.bundle import (
    ATTRIBUTE_DIMS,
    Bundle,
    latent_file,
    load_weights,
    read_bundle,
    verify,
    weights_hash,
    write_bundle,
)

BASE = UNetConfig(
    image_size=8,
    num_channels=32,
    num_res_blocks=1,
    channel_mult=(0.5 * 2, 2),
    attention_resolutions=(4,),
    identity_dim=6,
)
BUNDLE = Bundle(
    name="tiny",
    id_vector_model="sface",
    identity_dim=6,
    attribute_set=None,
    base=BASE,
    base_diffusion=DiffusionConfig(),
    sr=replace(BASE, image_size=16, identity_dim=None, low_res_size=8),
    sr_diffusion=DiffusionConfig(noise_schedule="linear"),
    sampling=SamplingOptions(steps=10),
    sr_sampling=SamplingOptions(sampler="ddim", eta=0.5),
    licence="MIT",
    training_card={"images": 1000, "nested": {"list": [1, 2.5, "drei"]}},
)
RNG = np.random.Generator(np.random.Philox(0))
BASE_TENSORS = {"a.weight": RNG.standard_normal((4, 3)).astype(np.float32), "a.bias": np.full(4, 1e-9, np.float32)}
SR_TENSORS = {"b.weight": RNG.standard_normal((2, 3, 3, 3)).astype(np.float32)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "bundles" / "tiny"
    write_bundle(path, BUNDLE, BASE_TENSORS, SR_TENSORS)
    return path


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads((folder / "bundle.json").read_text())
    change(data)
    (folder / "bundle.json").write_text(json.dumps(data))


def test_bundle_reads_back_equal(folder: Path) -> None:
    assert read_bundle(folder) == verify(folder) == BUNDLE
    for stage, tensors in (("base", BASE_TENSORS), ("sr", SR_TENSORS)):
        loaded = load_weights(folder, stage)
        assert loaded.keys() == tensors.keys()
        assert all(np.array_equal(loaded[key], tensor) for key, tensor in tensors.items())


def test_fp16_storage_halves_matrices_and_keeps_vectors(tmp_path: Path) -> None:
    write_bundle(tmp_path, BUNDLE, BASE_TENSORS, SR_TENSORS, storage="fp16")
    loaded = load_weights(tmp_path, "base")
    assert {tensor.dtype for tensor in loaded.values()} == {np.dtype(np.float32)}
    assert np.array_equal(loaded["a.weight"], BASE_TENSORS["a.weight"].astype(np.float16).astype(np.float32))
    assert np.array_equal(loaded["a.bias"], BASE_TENSORS["a.bias"])  # would be 0 in float16


def test_non_contiguous_tensors_are_stored_by_value(tmp_path: Path) -> None:
    tensor = np.arange(12, dtype=np.float32).reshape(3, 4)
    write_bundle(tmp_path, BUNDLE, {"a.weight": tensor.T}, SR_TENSORS)
    assert np.array_equal(load_weights(tmp_path, "base")["a.weight"], tensor.T)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_all_files_follow_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_bundle(tmp_path / "bundle", BUNDLE, BASE_TENSORS, SR_TENSORS)
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "bundle").iterdir()} == {mode}


def test_hash_is_that_of_the_file(folder: Path) -> None:
    content = (folder / "base.safetensors").read_bytes()
    assert weights_hash(folder, "base") == hashlib.sha256(content).hexdigest()
    assert weights_hash(folder, "base") != weights_hash(folder, "sr")


def test_same_weights_give_the_same_files(folder: Path, tmp_path: Path) -> None:
    write_bundle(tmp_path / "again", BUNDLE, dict(reversed(BASE_TENSORS.items())), SR_TENSORS)
    for name in ("bundle.json", "base.safetensors", "sr.safetensors"):
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_rewriting_replaces_everything_but_leaves_other_files(folder: Path) -> None:
    (folder / "latent").mkdir()
    write_bundle(folder, replace(BUNDLE, name="second"), SR_TENSORS, BASE_TENSORS)
    assert verify(folder).name == "second"
    assert load_weights(folder, "base").keys() == SR_TENSORS.keys()
    assert sorted(file.name for file in folder.iterdir()) == [
        "base.safetensors",
        "bundle.json",
        "latent",
        "sr.safetensors",
    ]


@pytest.mark.parametrize("name", ["bundle.json", "base.safetensors", "sr.safetensors"])
def test_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleError, match=f"'tiny' has no {name}") as error:
        verify(folder)
    assert str(folder.parent) not in str(error.value)


@pytest.mark.parametrize("stage", ["base", "sr"])
@pytest.mark.parametrize("damage", ["flipped bit", "truncated", "empty"])
def test_damaged_weights_are_named(folder: Path, stage: Any, damage: str) -> None:
    file = folder / f"{stage}.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes({"flipped bit": content, "truncated": content[: len(content) // 2], "empty": b""}[damage])
    for read in (verify, lambda path: load_weights(path, stage)):
        with pytest.raises(BundleError, match=f"{stage}.safetensors is damaged"):
            read(folder)


def test_file_that_is_not_safetensors_is_named(folder: Path) -> None:
    (folder / "sr.safetensors").write_bytes(b"\xff" * 100)
    edit(folder, lambda data: data["weights_sha256"].update(sr=weights_hash(folder, "sr")))
    with pytest.raises(BundleError, match=r"sr\.safetensors is not a readable safetensors file"):
        load_weights(folder, "sr")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(colour="red"), "Bundle has no colour"),
        (lambda data: data["base"].update(num_head=3), "base: UNetConfig has no num_head"),
        (lambda data: data.pop("licence"), "Bundle needs licence"),
        (lambda data: data["sr_sampling"].update(steps=0), "sr_sampling: steps=0"),
        (lambda data: data.update(sr=5), "sr=5"),
        (lambda data: data.update(schema_version=2), "schema_version=2"),
        (lambda data: data.update(identity_dim="six"), "identity_dim='six'"),
        (lambda data: data.update(identity_dim=7), "identity_dim=7: must equal base.identity_dim=6"),
        (lambda data: data.pop("weights_sha256"), "weights_sha256 must name"),
        (lambda data: data["weights_sha256"].pop("sr"), "weights_sha256 must name"),
    ],
)
def test_wrong_description_is_refused(folder: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    edit(folder, change)
    with pytest.raises(BundleError, match=f"bundle.json: .*{message}"):
        read_bundle(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe{"])
def test_description_that_is_no_json_object_is_refused(folder: Path, content: bytes) -> None:
    (folder / "bundle.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"bundle\.json"):
        read_bundle(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"identity_dim": 128}, "identity_dim=128"),
        ({"attribute_set": 1}, "needs 11"),
        ({"attribute_set": 4}, "must be null or one of 1, 2, 3, landmarks"),
        ({"base": replace(BASE, attribute_dim=11)}, "attribute_set=None needs None"),
        ({"attribute_set": 2, "base": replace(BASE, attribute_dim=11)}, "needs 17"),
        ({"base": replace(BASE, low_res_size=4)}, "base.low_res_size=4"),
        ({"sr": replace(BUNDLE.sr, low_res_size=4)}, "must equal base.image_size=8"),
        ({"sr": replace(BUNDLE.sr, low_res_size=None)}, "sr.low_res_size=None"),
        ({"sr": replace(BUNDLE.sr, identity_dim=6)}, "super-resolution is unconditional"),
        ({"name": ""}, "must not be empty"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        replace(BUNDLE, **changes)


@pytest.mark.parametrize("attribute_set", [1, 2, 3])
def test_attribute_sets_have_the_lengths_of_table_6(attribute_set: int) -> None:
    categories = {"emotion": 8, "head pose": 3}
    if attribute_set >= 2:
        categories |= {"glasses": 1, "makeup": 2, "occlusions": 3}
    if attribute_set == 3:
        categories |= {"age": 1, "facial hair": 3, "hair": 8, "gender": 1}
    dim = sum(categories.values())
    bundle = replace(BUNDLE, attribute_set=attribute_set, base=replace(BASE, attribute_dim=dim))
    assert bundle.base.attribute_dim == ATTRIBUTE_DIMS[attribute_set]


def test_weights_that_float16_cannot_hold_are_refused(tmp_path: Path) -> None:
    large = {"a.weight": np.full((2, 2), 70_000, np.float32)}
    with pytest.raises(BundleError, match=r"sr weight a\.weight exceeds 65504"):
        write_bundle(tmp_path, BUNDLE, BASE_TENSORS, large, storage="fp16")
    assert list(tmp_path.iterdir()) == []
    write_bundle(tmp_path, BUNDLE, BASE_TENSORS, large)


def test_failed_rewrite_leaves_the_old_bundle(folder: Path) -> None:
    with pytest.raises(BundleError, match="holds NaN"):
        write_bundle(folder, replace(BUNDLE, name="second"), BASE_TENSORS, {"b": np.array([np.nan])})
    assert verify(folder) == BUNDLE


def test_reading_a_bundle_needs_no_torch() -> None:
    code = "import sys, id3pm.formats.bundle; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def latent(folder: Path, file_kind: str = "pca", **changes: Any) -> Path:
    file = folder / "latent" / f"{file_kind}.npz"
    text = {"kind": file_kind, "id_vector_model": "sface", "identity_dim": 6, **changes}
    write_arrays(file, text, {"a": np.ones(3)})
    return file


def test_axes_and_directions_are_optional_and_found(folder: Path) -> None:
    assert latent_file(folder, "pca") is None and verify(folder) == BUNDLE
    files = {kind: latent(folder, kind) for kind in ("pca", "directions")}
    assert {kind: latent_file(folder, kind) for kind in files} == files
    assert verify(folder) == BUNDLE


@pytest.mark.parametrize("kind", ["pca", "directions"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id_vector_model": "arcface"}, "is for arcface vectors of 6 numbers, the bundle takes sface vectors of 6"),
        ({"identity_dim": 128}, "is for sface vectors of 128 numbers"),
        ({"kind": "other"}, "is of kind 'other'"),
    ],
)
def test_latent_files_of_another_model_are_refused(
    folder: Path, kind: Any, changes: dict[str, Any], message: str
) -> None:
    latent(folder, kind, **changes)
    for read in (verify, lambda path: latent_file(path, kind)):
        with pytest.raises(BundleError, match=f"latent/{kind}.npz {message}"):
            read(folder)


def test_damaged_latent_file_is_named_without_its_path(folder: Path) -> None:
    file = latent(folder)
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(BundleError, match=r"^latent/pca\.npz is damaged"):
        verify(folder)


def test_arrays_are_written_whole_and_read_back(tmp_path: Path) -> None:
    file = tmp_path / "new" / "x.npz"
    arrays = {"a": np.arange(3), "b": np.eye(2, dtype=np.float32)}
    write_arrays(file, {"kind": "x", "text": "älter"}, arrays)
    description, found = read_arrays(file, "x")
    assert description == {"kind": "x", "text": "älter"} and found.keys() == arrays.keys()
    assert all(
        np.array_equal(found[name], array) and found[name].dtype == array.dtype for name, array in arrays.items()
    )
    before = file.read_bytes()
    with pytest.raises(ValueError, match="Out of range float values"):
        write_arrays(file, {"kind": "x", "nan": float("nan")}, arrays)
    assert file.read_bytes() == before and [path.name for path in file.parent.iterdir()] == ["x.npz"]
