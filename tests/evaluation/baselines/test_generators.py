"""Generators that a user brings: StyleGAN2 as a state dict or as ONNX; pickles are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from id3pm.errors import CheckpointError, EngineError, InvalidInputError
from id3pm.evaluation.baselines.generators import EmbeddedGenerator, OwnGenerator
from id3pm.evaluation.baselines.stylegan2 import StyleGan2
from tests.golden.stylegan2_case import case_latents, case_weights

GOLDEN = json.loads((Path(__file__).parents[2] / "golden/stylegan2.json").read_text())


def test_pictures_are_those_of_the_original() -> None:
    network = StyleGan2(case_weights())
    assert (network.latent_size, network.image_size) == (8, 16)
    found = network.images(case_latents()).numpy()
    np.testing.assert_allclose(found[:, :, ::5, ::5], GOLDEN["pixels"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(network.images(case_latents()[1:]).numpy(), found[1:], rtol=1e-4, atol=1e-5)


def test_a_state_dict_is_read_alone_or_as_the_average_of_a_checkpoint(tmp_path: Path) -> None:
    torch.save(case_weights(), tmp_path / "alone.pt")
    torch.save({"g_ema": case_weights(), "latent_avg": torch.zeros(8)}, tmp_path / "checkpoint.pt")
    alone, checkpoint = (OwnGenerator(tmp_path / f"{name}.pt") for name in ("alone", "checkpoint"))
    z = alone.latents([3, 4], seed=0)
    assert alone.images(z).shape == (2, 16, 16, 3) and alone.images(z).dtype == np.uint8
    np.testing.assert_array_equal(alone.images(z), checkpoint.images(z))
    np.testing.assert_array_equal(z[1:], alone.latents([4], seed=0))


def test_what_is_no_generator_is_refused(tmp_path: Path) -> None:
    (tmp_path / "network.pkl").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(InvalidInputError, match="network.pkl is a Python pickle, which could run any code"):
        OwnGenerator(tmp_path / "network.pkl")
    with pytest.raises(InvalidInputError, match="x.bin: a generator is an .onnx file or a .pt state dict"):
        OwnGenerator(tmp_path / "x.bin")
    torch.save({"g_ema": {"input.input": torch.zeros(1)}}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="other.pt: the state dict has no tensors style.1.weight"):
        OwnGenerator(tmp_path / "other.pt")
    torch.save({"g_ema": [1]}, tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="list.pt must hold a state dict of tensors"):
        OwnGenerator(tmp_path / "list.pt")
    weights = case_weights()
    del weights["conv1.noise.weight"]
    with pytest.raises(CheckpointError, match="conv1.noise.weight"):
        StyleGan2(weights)


def onnx_file(file: Path, batch: int | str, channels: int = 3) -> Path:
    """z [N, 12] as a picture of 2 x 2, enlarged by nothing."""
    shape = helper.make_tensor(
        "shape", TensorProto.INT64, [4], [-1 if isinstance(batch, str) else batch, channels, 2, 2]
    )
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["z", "shape"], ["picture"])],
        "generator",
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [batch, 4 * channels])],
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, [batch, channels, 2, 2])],
        [shape],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), file)
    return file


@pytest.mark.parametrize("batch", ["N", 1])
def test_onnx_with_a_free_or_a_single_batch(tmp_path: Path, batch: int | str) -> None:
    generator = OwnGenerator(onnx_file(tmp_path / "generator.onnx", batch), threads=1)
    z = np.linspace(-1.0, 1.0, 5 * 12, dtype=np.float32).reshape(5, 12)
    wanted = np.rint((z + 1.0) * 127.5).astype(np.uint8).reshape(5, 3, 2, 2).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(generator.images(z), wanted)


def test_onnx_that_makes_no_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"need square RGB pictures"):
        OwnGenerator(onnx_file(tmp_path / "grey.onnx", "N", channels=1))
    with pytest.raises(EngineError, match="the batch must be free, or 1; it is 2"):
        OwnGenerator(onnx_file(tmp_path / "two.onnx", 2))


def test_the_64_px_gan_gets_latents_of_one_norm() -> None:
    pytest.importorskip("gan_face_generate")
    generator = EmbeddedGenerator()
    z = generator.latents([1, 2], seed=0)
    assert z.shape == (2, 100)
    np.testing.assert_array_equal(generator.images(z), generator.images(8.0 * z))
