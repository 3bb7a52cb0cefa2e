"""The list of an artifact's files: no name, size or form that a hub sends gets beyond it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from id3pm.artifacts.contents import MAX_LIST, MAX_TOTAL, Contents, FileEntry, parse_contents
from id3pm.errors import TransferError

FILE = {"size": 10, "sha256": "0" * 64}
BUNDLE = dict.fromkeys(("bundle.json", "base.safetensors", "sr.safetensors"), FILE)
ENGINE = "{}/1/engine/manifest.json"
ENGINES = dict.fromkeys(map(ENGINE.format, ("denoiser_64", "super_resolution", "face_embedding")), FILE)


def listed(files: Any, kind: str = "bundle", **changes: Any) -> bytes:
    return json.dumps({"schema": 1, "kind": kind, "files": files, "about": {}, **changes}).encode()


def test_a_list_is_read_as_it_was_written() -> None:
    entries = {name: FileEntry(10, "0" * 64) for name in BUNDLE}
    contents = Contents("bundle", entries, {"name": "demo"})
    assert parse_contents(contents.to_bytes()) == contents
    assert parse_contents(listed(ENGINES, "engines")).size == 30


@pytest.mark.parametrize(
    "name",
    [
        "../bundle.json",
        "/etc/passwd",
        "latent/../../x.npz",
        "model.py",
        "weights.pt",
        "weights.pkl",
        ".git/config",
        "source.json",
        "",
        "latent",
    ],
)
def test_a_bundle_has_no_other_files(name: str) -> None:
    with pytest.raises(TransferError, match="is no file of a bundle"):
        parse_contents(listed({**BUNDLE, name: FILE}))


@pytest.mark.parametrize(
    "name",
    [
        "denoiser_64/1/model.py",
        "denoiser_64/config.pbtxt",
        "denoiser_64/1/engine/../model.py",
        "denoiser_64/1/engine/plugin.so",
        "denoiser_64/1/engine/.hidden.json",
        "denoiser_64/1/engine/a/b.onnx",
        "denoiser_64/1/engine/x.pickle",
        "other/1/engine/model.onnx",
        "source.json",
    ],
)
def test_an_engine_set_has_no_programs(name: str) -> None:
    with pytest.raises(TransferError, match="is no file of an engine set"):
        parse_contents(listed({**ENGINES, name: FILE}, "engines"))


@pytest.mark.parametrize(
    "entry",
    [
        {"size": -1, "sha256": "0" * 64},
        {"size": MAX_TOTAL + 1, "sha256": "0" * 64},
        {"size": True, "sha256": "0" * 64},
        {"size": 1.5, "sha256": "0" * 64},
        {"size": 1, "sha256": "0" * 63},
        {"size": 1, "sha256": "Z" * 64},
        {"size": 1},
        [],
        None,
    ],
)
def test_each_file_has_size_and_hash(entry: Any) -> None:
    with pytest.raises(TransferError, match=r"base\.safetensors.*must have size"):
        parse_contents(listed({**BUNDLE, "base.safetensors": entry}))


def test_sizes_are_limited() -> None:
    half = {"size": MAX_TOTAL // 2 + 1, "sha256": "0" * 64}
    with pytest.raises(TransferError, match="bytes in all"):
        parse_contents(listed({**BUNDLE, "base.safetensors": half, "sr.safetensors": half}))
    with pytest.raises(TransferError, match=r"bundle\.json: \d+ bytes: at most"):
        parse_contents(listed({**BUNDLE, "bundle.json": {"size": 2**24, "sha256": "0" * 64}}))
    many = {f"denoiser_64/1/engine/{number}.onnx": FILE for number in range(100)}
    with pytest.raises(TransferError, match="103 files: at most"):
        parse_contents(listed({**ENGINES, **many}, "engines"))
    with pytest.raises(TransferError, match="more than"):
        parse_contents(b" " * (MAX_LIST + 1))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        listed(BUNDLE, schema=2),
        listed(BUNDLE, kind="pickle"),
        listed([]),
        listed(BUNDLE, about=[]),
    ],
)
def test_what_is_no_list_is_refused(data: bytes) -> None:
    with pytest.raises(TransferError):
        parse_contents(data)


def test_a_bundle_without_weights_is_refused() -> None:
    with pytest.raises(TransferError, match=r"has no sr\.safetensors"):
        parse_contents(listed({name: FILE for name in ("bundle.json", "base.safetensors")}))
