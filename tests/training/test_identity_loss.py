from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from accelerate import Accelerator
from onnx import TensorProto, helper, numpy_helper
from skimage.data import astronaut
from tiny_training import TINY_BASE, TINY_SR, face_arrays

from id3pm.errors import ConfigError, EngineError
from id3pm.face.align import align_face
from id3pm.face.encoders import load_models
from id3pm.face.manifest import read_manifest
from id3pm.formats.images import area_reduce, to_chw
from id3pm.training.data import FaceBatches
from id3pm.training.differentiable import DifferentiableGraph
from id3pm.training.identity_loss import IdentityLoss, crop_to_image
from id3pm.training.loop import Trainer

Face = tuple[np.ndarray, np.ndarray, np.ndarray]


def _save(path: Path, nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray]) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, 7, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_every_operator_equals_onnxruntime(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    constants = {
        "two": np.full(1, 2.0),
        "w1": rng.standard_normal((6, 2, 3, 2)),
        "b1": rng.standard_normal(6),
        "w2": rng.standard_normal((6, 1, 1, 1)),
        "scale": rng.random(6) + 0.5,
        "shift": rng.standard_normal(6),
        "mean": rng.standard_normal(6),
        "var": rng.random(6) + 0.5,
        "slope": rng.random((6, 1, 1)),
        "w3": rng.standard_normal((5, 6 * 4 * 6)),
        "b3": rng.standard_normal(5),
    }
    nodes = [
        helper.make_node("Sub", ["x", "two"], ["a"]),
        helper.make_node("Mul", ["a", "two"], ["b"]),
        helper.make_node("Div", ["b", "two"], ["c"]),
        helper.make_node("Conv", ["c", "w1", "b1"], ["d"], group=2, strides=[2, 1], pads=[1, 1, 1, 0]),
        helper.make_node("Conv", ["d", "w2"], ["e"], group=6),
        helper.make_node("BatchNormalization", ["e", "scale", "shift", "mean", "var"], ["f"], epsilon=1e-3),
        helper.make_node("PRelu", ["f", "slope"], ["g"]),
        helper.make_node("Relu", ["d"], ["h"]),
        helper.make_node("Add", ["g", "h"], ["i"]),
        helper.make_node("Identity", ["i"], ["j"]),
        helper.make_node("Flatten", ["j"], ["k"]),
        helper.make_node("Gemm", ["k", "w3", "b3"], ["y"], transB=1, alpha=0.5, beta=2.0),
    ]
    path = _save(tmp_path / "all.onnx", nodes, constants)
    x = rng.standard_normal((3, 4, 7, 6)).astype(np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": x})[0]
    np.testing.assert_allclose(DifferentiableGraph(path)(torch.from_numpy(x)), expected, rtol=1e-4, atol=1e-4)


def test_an_unknown_operator_is_named(tmp_path: Path) -> None:
    path = _save(tmp_path / "odd.onnx", [helper.make_node("Erf", ["x"], ["y"])], {})
    with pytest.raises(EngineError, match="Erf"):
        DifferentiableGraph(path)


@pytest.fixture(scope="module")
def face(face_folder: Path) -> Face:
    """A face at 64 px, its landmarks, and its ID vector as the served FR stage computes it."""
    detector, encoder = load_models(face_folder, read_manifest(face_folder))
    photo = np.ascontiguousarray(astronaut()[:256, 96:352])
    image = area_reduce(photo[None], 4)[0]
    found = detector.detect_batch(image[None])[0]
    landmarks = found[0, 4:14].reshape(5, 2)
    return image, landmarks, encoder.encode_batch(align_face(image, landmarks)[None])


def test_vectors_are_those_of_the_served_model(face: Face, face_folder: Path) -> None:
    image, landmarks, vector = face
    x0 = torch.from_numpy(to_chw(image[None]))
    embedded = IdentityLoss(face_folder).embed(x0, torch.from_numpy(crop_to_image(landmarks[None])))
    assert float((embedded * torch.from_numpy(vector)).sum()) > 0.999


def test_its_gradient_leads_to_the_identity(face: Face, face_folder: Path) -> None:
    image, landmarks, vector = face
    loss, alignments = IdentityLoss(face_folder), torch.from_numpy(crop_to_image(landmarks[None]))
    blurred = torch.nn.functional.avg_pool2d(torch.from_numpy(to_chw(image[None])), 9, stride=1, padding=4)
    x0 = blurred.clone().requires_grad_()
    share = torch.tensor([0.5])
    before = loss(x0, alignments, torch.from_numpy(vector), share).sum()
    before.backward()
    assert x0.grad is not None
    after = loss(blurred - 0.02 * x0.grad.sign(), alignments, torch.from_numpy(vector), share).sum()
    assert after.item() < before.item() - 0.025


def test_rows_without_condition_and_telling_nothing_do_not_count(face: Face, face_folder: Path) -> None:
    image, landmarks, vector = face
    x0 = torch.from_numpy(to_chw(np.stack([image] * 4))).requires_grad_()
    alignments = torch.from_numpy(crop_to_image(np.stack([landmarks] * 4)))
    vectors = torch.from_numpy(np.concatenate([0 * vector, -vector, -vector, -vector]))
    loss = IdentityLoss(face_folder)(x0, alignments, vectors, torch.tensor([0.5, 0.5, 0.01, 0.999]))
    loss.sum().backward()
    assert x0.grad is not None
    for row in (0, 2, 3):
        assert loss[row].item() == 0.0
        assert x0.grad[row].abs().max().item() == 0.0
    assert loss[1].item() > 0.95, "1 - cosine is 2, half of the image is there"


def test_a_batch_that_tells_nothing_still_has_a_gradient(face: Face, face_folder: Path) -> None:
    image, landmarks, vector = face
    x0 = torch.from_numpy(to_chw(image[None])).requires_grad_()
    alignments = torch.from_numpy(crop_to_image(landmarks[None]))
    IdentityLoss(face_folder)(x0, alignments, torch.from_numpy(vector), torch.tensor([0.0])).sum().backward()
    assert x0.grad is not None
    assert x0.grad.abs().max().item() == 0.0


def test_a_run_trains_on_it_and_mirrors_the_landmarks(tmp_path: Path, face: Face, face_folder: Path) -> None:
    image, landmarks, vector = face
    arrays = face_arrays()
    count, side = len(arrays["images"]), TINY_BASE.train_size
    small = area_reduce(image[None], 64 // side)[0]
    arrays["images"] = np.repeat(small[None], count, axis=0)
    arrays["vectors"] = arrays["flipped_vectors"] = np.repeat(vector, count, axis=0)
    arrays["detections"][:, 4:14] = ((landmarks + 0.5) * side / 64 - 0.5).ravel()
    unet = dataclasses.replace(TINY_BASE.unet, identity_dim=vector.shape[1])
    config = dataclasses.replace(TINY_BASE, unet=unet, identity_loss=0.1, condition_dropout=0.0)
    batch = FaceBatches(arrays, config).at(0)
    judge = IdentityLoss(face_folder)
    assert batch.alignments is not None
    clean = judge.embed(batch.x0, batch.alignments)
    assert float((clean @ clean.T).min()) > 0.8, "a mirrored face aligned with mirrored landmarks is the same face"
    trainer = Trainer(config, FaceBatches(arrays, config), tmp_path, {}, Accelerator(cpu=True), judge)
    losses = trainer.train_step()
    assert losses["loss"] > losses["mse"] > 0.0
    assert 0.0 < losses["identity"] < 2.0


def test_it_needs_id_vectors_and_its_fr_model(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"identity_loss=0\.1"):
        dataclasses.replace(TINY_SR, identity_loss=0.1)
    with pytest.raises(ConfigError, match="identity_loss=-1"):
        dataclasses.replace(TINY_BASE, identity_loss=-1.0)
    config = dataclasses.replace(TINY_BASE, identity_loss=0.1)
    with pytest.raises(ValueError, match="both or none"):
        Trainer(config, FaceBatches(face_arrays(), config), tmp_path, {}, Accelerator(cpu=True))
