from __future__ import annotations

import json
from pathlib import Path

import pytest

from id3pm.engines.manifest import engine_sha256, read_manifest, verify_engine_file, write_manifest
from id3pm.errors import ConfigError, EngineError, EngineMissingError


def edit(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_manifest_survives_writing_and_reading(base_folder: Path, tmp_path: Path) -> None:
    manifest = read_manifest(base_folder)
    write_manifest(tmp_path, manifest)
    assert read_manifest(tmp_path) == manifest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json"]


def test_missing_manifest_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(EngineMissingError, match=r"run: id3pm build"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "red"}, "has no colour"),
        ({"schema_version": 2}, "schema_version=2"),
        ({"target": "openvino"}, "target='openvino'"),
        ({"max_batch": 0}, "max_batch=0"),
        ({"max_batch": "16"}, "max_batch='16'"),
        ({"file": "../../etc/passwd"}, "plain file name"),
        ({"versions": {"torch": 2}}, "versions.torch=2"),
        ({"unet": {"image_size": 16}}, "UNetConfig needs"),
        ({"sampling": {"steps": 0}}, "steps=0"),
        ({"parity": {"forward": []}}, "Parity needs"),
    ],
)
def test_wrong_manifest_is_refused_with_the_key(engine_copy: Path, changes: dict[str, object], message: str) -> None:
    edit(engine_copy, **changes)
    with pytest.raises(EngineError, match=message):
        read_manifest(engine_copy)


def test_missing_key_is_refused(engine_copy: Path) -> None:
    data = json.loads((engine_copy / "manifest.json").read_text())
    del data["diffusion"]
    (engine_copy / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(EngineError, match="Manifest needs diffusion"):
        read_manifest(engine_copy)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[]"], ids=["cut", "not text", "list"])
def test_text_that_is_not_json_is_refused(engine_copy: Path, content: bytes) -> None:
    (engine_copy / "manifest.json").write_bytes(content)
    with pytest.raises(EngineError, match="manifest is not valid"):
        read_manifest(engine_copy)


def test_changed_engine_file_is_noticed(engine_copy: Path) -> None:
    manifest = read_manifest(engine_copy)
    path = verify_engine_file(engine_copy, manifest)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(EngineError, match="damaged or from another build"):
        verify_engine_file(engine_copy, manifest)
    path.unlink()
    with pytest.raises(EngineMissingError, match=r"model\.onnx is missing"):
        verify_engine_file(engine_copy, manifest)


def test_engine_hash_covers_external_weights(tmp_path: Path) -> None:
    file, weights = tmp_path / "model.onnx", tmp_path / "model.onnx.data"
    file.write_bytes(b"graph")
    alone = engine_sha256(file)
    weights.write_bytes(b"weights")
    together = engine_sha256(file)
    weights.write_bytes(b"weightz")
    assert len({alone, together, engine_sha256(file)}) == 3


def test_manifest_of_an_impossible_batch_cannot_be_made(base_folder: Path) -> None:
    import dataclasses

    with pytest.raises(ConfigError, match="max_batch=0"):
        dataclasses.replace(read_manifest(base_folder), max_batch=0)
