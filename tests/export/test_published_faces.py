"""`face_models.py --model facenet:PATH` and its kin: from a checkpoint to the ID vector of a photograph."""

from __future__ import annotations

import copy
import os
import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from id3pm.errors import CheckpointError, EngineError, EngineMissingError, MissingExtraError
from id3pm.export.face import build as face_models
from id3pm.export.face import checkpoints as face_checkpoints
from id3pm.export.face import graphs as face_graphs
from id3pm.export.face import mtcnn as face_mtcnn
from id3pm.export.face import published as face_published
from id3pm.export.face import trace as face_trace
from id3pm.face.encoders import unit
from id3pm.face.manifest import read_manifest
from id3pm.face.stage import FaceStage
from id3pm.formats.hashing import file_sha256
from tests.export.thin_networks import THIN, thin_network, write_checkpoint
from tests.face.scenes import scenes

GOLDEN = np.load(Path(__file__).parents[1] / "golden/face_networks.npz")
PORTRAIT = scenes()["portrait"]
CROP_96 = np.array([[30.2946, 51.6963], [65.5318, 51.5014], [48.0252, 71.7366], [33.5493, 92.3655], [62.7299, 92.2041]])


@pytest.fixture(autouse=True)
def thin(monkeypatch: pytest.MonkeyPatch, mtcnn_folder: Path) -> None:
    """One block per level, and MTCNN exported once."""

    def copy_detector(folder: Path) -> dict[str, str]:
        names = [f"{name}.onnx" for name in face_mtcnn.NAMES]
        return {name: file_sha256(shutil.copyfile(mtcnn_folder / name, folder / name)) for name in names}

    monkeypatch.setattr(face_published, "new_network", lambda kind: THIN[kind]())
    monkeypatch.setattr(face_mtcnn, "build_detector", copy_detector)


def checkpoint_of(kind: str, folder: Path, name: str | None = None) -> Path:
    path = folder / (name or face_published.PUBLISHED[kind].checkpoint)
    return write_checkpoint(kind, thin_network(kind), path)


def published_crop(kind: str) -> np.ndarray:
    """What the repository of `kind` gives its network for the portrait, written out: float32 [3, H, W]."""
    points = GOLDEN["mtcnn portrait points"][0]
    if kind == "facenet":  # MTCNN(image_size=160), fixed_image_standardization
        return (GOLDEN["mtcnn portrait crop margin 0"].transpose(2, 0, 1).astype(np.float32) - 127.5) / 128.0
    template = CROP_96 if kind == "from" else CROP_96 + (8, 0)
    if kind == "adaface":  # get_similarity_transform_for_cv2: least squares in the photograph
        a = np.zeros((10, 4))
        a[0::2] = np.column_stack([template[:, 0], -template[:, 1], np.ones(5), np.zeros(5)])
        a[1::2] = np.column_stack([template[:, 1], template[:, 0], np.zeros(5), np.ones(5)])
        scale_cos, scale_sin, x, y = np.linalg.lstsq(a, points.reshape(-1).astype(float), rcond=None)[0]
        matrix = cv2.invertAffineTransform(np.array([[scale_cos, -scale_sin, x], [scale_sin, scale_cos, y]]))
    else:
        a = np.zeros((10, 4))
        a[0::2] = np.column_stack([points[:, 0], -points[:, 1], np.ones(5), np.zeros(5)])
        a[1::2] = np.column_stack([points[:, 1], points[:, 0], np.zeros(5), np.ones(5)])
        scale_cos, scale_sin, x, y = np.linalg.lstsq(a, template.reshape(-1), rcond=None)[0]
        matrix = np.array([[scale_cos, -scale_sin, x], [scale_sin, scale_cos, y]])
    crop = cv2.warpAffine(PORTRAIT, matrix, (96 if kind == "from" else 112, 112))
    crop = crop[..., ::-1] if kind == "adaface" else crop
    return ((crop / 255.0 - 0.5) / 0.5).transpose(2, 0, 1).astype(np.float32)


@pytest.mark.parametrize("kind", THIN)
def test_a_checkpoint_becomes_a_face_stage_with_the_repositorys_pre_processing(kind: str, tmp_path: Path) -> None:
    checkpoint = checkpoint_of(kind, tmp_path)
    folder, built = face_models.build_face_models(tmp_path / "repository", f"{kind}:{checkpoint}")
    assert built
    manifest = read_manifest(folder)
    assert manifest.id_vector_model == face_models.vectors_of(f"{kind}:{checkpoint}")
    assert (manifest.detector, list(manifest.detector_files)) == ("mtcnn", ["pnet.onnx", "rnet.onnx", "onet.onnx"])
    stage = FaceStage.load(folder, threads=1)
    (result,) = stage.embed_images(PORTRAIT[None])
    assert not isinstance(result, Exception)
    crop = published_crop(kind)
    expected, mirrored, swapped = unit(
        thin_network(kind)(torch.from_numpy(np.stack([crop, crop[..., ::-1], crop[::-1]]))).numpy()
    )
    error, *others = (np.abs(vector - expected).max() for vector in (result.embedding, mirrored, swapped))
    assert error < 0.05 * min(others), "a wrong side or order of channels would be seen"
    assert error < 1e-3


@pytest.mark.parametrize(
    ("kind", "file", "name"),
    [
        ("facenet", "20180402-114759-vggface2.pt", "facenet:20180402-114759-vggface2"),
        ("adaface", "adaface_ir50_ms1mv2.ckpt", "adaface:adaface_ir50_ms1mv2"),
        ("from", "model_p5_w1_9938_9470_6503.pth.tar", "from:model_p5_w1_9938_9470_6503"),
    ],
)
def test_vectors_are_named_after_kind_and_weights(kind: str, file: str, name: str) -> None:
    assert face_models.vectors_of(f"{kind}:some/where/{file}") == name


def test_an_up_to_date_folder_is_left_alone_and_other_weights_rebuild_it(tmp_path: Path) -> None:
    model = f"facenet:{checkpoint_of('facenet', tmp_path)}"
    assert face_models.build_face_models(tmp_path / "repository", model)[1]
    assert not face_models.build_face_models(tmp_path / "repository", model)[1]
    before = read_manifest(tmp_path / "repository/face_embedding/1/engine")
    other = copy.deepcopy(thin_network("facenet"))
    next(other.parameters()).mul_(1.01)
    write_checkpoint("facenet", other, Path(model.removeprefix("facenet:")))
    folder, built = face_models.build_face_models(tmp_path / "repository", model)
    assert built
    assert read_manifest(folder).encoder_sha256 != before.encoder_sha256


def test_a_missing_checkpoint_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(
        EngineMissingError,
        match=r"no file .*x\.pt: get 20180402-114759-vggface2\.pt \(release .*facenet-pytorch \(MIT\)",
    ):
        face_models.build_face_models(tmp_path, f"facenet:{tmp_path / 'x.pt'}")


def test_weights_of_another_architecture_are_refused_and_the_old_folder_stays(tmp_path: Path) -> None:
    old = tmp_path / "face_embedding/1/engine/old.onnx"
    old.parent.mkdir(parents=True)
    old.touch()
    wrong = checkpoint_of("facenet", tmp_path, "other.ckpt")
    result = CliRunner().invoke(face_models.main, ["--repository", str(tmp_path), "--model", f"adaface:{wrong}"])
    assert result.exit_code == 1
    assert result.output.startswith("Error: other.ckpt is not of adaface's architecture")
    assert "input_layer.0.weight (64, 3, 3, 3)" in result.output
    assert [file.name for file in old.parent.parent.rglob("*.onnx")] == ["old.onnx"]


def test_a_graph_that_computes_something_else_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rewrite = face_graphs.rewrite_prelu

    def rewrite_wrongly(model: Any) -> None:
        rewrite(model)
        if model.graph.name == "InceptionResnetV1":
            next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Abs"

    monkeypatch.setattr(face_graphs, "rewrite_prelu", rewrite_wrongly)
    result = CliRunner().invoke(
        face_models.main, ["--repository", str(tmp_path), "--model", f"facenet:{checkpoint_of('facenet', tmp_path)}"]
    )
    assert result.exit_code == 1
    assert re.search(r"Error: facenet\.onnx differs from its original by .*: at most 2e-05", result.output)
    assert not (tmp_path / "face_embedding/1/engine").exists()


class _Touches:
    """Unpickled by Python, it would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self._path),)


def test_a_checkpoint_cannot_run_code(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    for old in (False, True):
        file = tmp_path / f"{old}.pt"
        content = {"hyper_parameters": _Touches(trap), "state_dict": {"weight": torch.ones(2)}}
        torch.save(content, file, _use_new_zipfile_serialization=not old)
        assert face_checkpoints.read_state_dict(file)["weight"].tolist() == [1.0, 1.0]
        assert not trap.exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 half"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weights.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"weights\.pt \(\d+ bytes\) is no PyTorch checkpoint"):
        face_checkpoints.read_state_dict(tmp_path / "weights.pt")


def test_a_file_without_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=r"weights\.pt has no state dict: it holds a dict"):
        face_checkpoints.read_state_dict(tmp_path / "weights.pt")


def test_mtcnn_says_how_to_get_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face_mtcnn, "DISTRIBUTION", "facenet-pytorch-that-is-not-there")
    with pytest.raises(MissingExtraError, match=r"pip install --no-deps facenet-pytorch==2\.6\.0"):
        face_mtcnn.detector_files()


def test_a_layer_that_the_exporter_does_not_know_is_named() -> None:
    with pytest.raises(EngineError, match="GELU, which the FR models' exporter does not know"):
        face_trace.trace(nn.Sequential(nn.Conv2d(3, 4, 1), nn.GELU()), (8, 8), ["y"])
