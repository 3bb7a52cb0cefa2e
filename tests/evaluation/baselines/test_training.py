"""Training of NbNet and Vec2Face on a few made-up people: it learns, resumes exactly, and names mistakes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from id3pm.errors import CheckpointError, EngineError, Id3pmError, InvalidInputError
from id3pm.evaluation.baselines import vgg
from id3pm.evaluation.baselines.commands import baseline_group
from id3pm.evaluation.baselines.nbnet import NbNet
from id3pm.evaluation.baselines.nbnet_training import NbNetTraining
from id3pm.evaluation.baselines.trained import TrainedNetwork
from id3pm.evaluation.baselines.trainer import Pairs
from id3pm.evaluation.baselines.vec2face import Generator, metric_loss, scale_weights
from id3pm.evaluation.baselines.vgg import Vgg19
from id3pm.formats import datasets

DIM, PEOPLE = 4, 12


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """People whose colour is their vector; two of them are held out."""
    folder = tmp_path_factory.mktemp("people")
    vectors = np.random.default_rng(0).standard_normal((PEOPLE, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    colors = np.rint(128 + 100 * vectors[:, :3]).astype(np.uint8)
    datasets.begin(folder, {"kind": "test", "id_vector_model": "sface"})
    arrays = {
        "images": np.broadcast_to(colors[:, None, None], (PEOPLE, 64, 64, 3)).copy(),
        "vectors": vectors,
        "flipped_vectors": vectors,
        "detections": np.zeros((PEOPLE, 15), np.float32),
        "index": np.array([0, 20, *range(1, PEOPLE - 1)]),
    }
    datasets.write_shard(folder, 0, arrays)
    return folder


def train(data: Path, method: str, out: Path, *arguments: str) -> Exception | None:
    common = ["--data", str(data), "--out", str(out), "--batch-size", "2", "--threads", "1", "--save-every", "1"]
    result = CliRunner().invoke(baseline_group, ["train", method, *common, *arguments], standalone_mode=False)
    assert result.exception is None or isinstance(result.exception, Id3pmError), result.exception
    return result.exception


@pytest.mark.parametrize(
    ("method", "sizes"),
    [
        ("nbnet", ("--blocks", "B")),
        ("nbnet", ("--blocks", "B", "--precision", "bf16")),
        ("vec2face", ("--student-steps", "2")),
    ],
)
def test_a_resumed_run_ends_with_the_same_weights(data: Path, tmp_path: Path, method: str, sizes: tuple[str]) -> None:
    assert train(data, method, tmp_path / "whole", *sizes, "--steps", "2") is None
    assert train(data, method, tmp_path / "parts", *sizes, "--steps", "1") is None
    assert train(data, method, tmp_path / "parts", *sizes, "--steps", "2", "--resume") is None
    whole, parts = (load_file(tmp_path / f"{name}/{method}.safetensors") for name in ("whole", "parts"))
    for name, tensor in whole.items():
        torch.testing.assert_close(parts[name], tensor, rtol=0.0, atol=0.0, msg=name)
    method_ = TrainedNetwork(method, tmp_path / f"whole/{method}.safetensors", "sface")
    vectors = datasets.load(data, "test")["vectors"]
    images = method_.images(vectors, [0, 1])
    assert images.shape == (2, 64, 64, 3) and images.dtype == np.uint8
    np.testing.assert_array_equal(images, method_.images(8.0 * vectors, [2, 3]))


def test_nbnet_learns_the_picture_of_a_vector(data: Path) -> None:
    torch.manual_seed(0)
    training = NbNetTraining(NbNet(DIM, "B"), Pairs(data, 8, 64), learning_rate=5e-3)
    losses = [training.step(step)["loss"] for step in range(20)]
    assert losses[-1] < 0.45 * losses[0]


def test_bf16_changes_the_products_of_a_step_and_nothing_else(data: Path, tmp_path: Path) -> None:
    assert train(data, "nbnet", tmp_path / "fp32", "--blocks", "B", "--steps", "2") is None
    assert train(data, "nbnet", tmp_path / "bf16", "--blocks", "B", "--steps", "2", "--precision", "bf16") is None
    whole, half = (torch.load(tmp_path / f"{name}/checkpoint.pt", weights_only=True) for name in ("fp32", "bf16"))
    (before, _), (after, _) = (list(run["state"]["network"].items())[0:2] for run in (whole, half))
    assert before[0] == after[0] and after[1].dtype == torch.float32
    assert not torch.equal(before[1], after[1])
    torch.testing.assert_close(after[1], before[1], rtol=0.0, atol=1e-3)  # two steps of Adam, 2e-4 each, either way


def test_mistakes_are_named(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    small, bf16 = ("--blocks", "B", "--steps", "1"), ("--resume", "--precision", "bf16")
    assert train(data, "nbnet", run, *small) is None

    def refused(error: type[Id3pmError], text: str, method: str, out: Path, *arguments: str) -> None:
        with pytest.raises(error, match=text):
            raise train(data, method, out, *arguments) or AssertionError

    refused(CheckpointError, "holds a run already", "nbnet", run, *small)
    refused(CheckpointError, "batch size=2, asked for is 3", "nbnet", run, *small, "--resume", "--batch-size", "3")
    refused(CheckpointError, "precision='fp32', asked for is 'bf16'", "nbnet", run, *small, *bf16)
    refused(CheckpointError, "leave --resume out to begin", "nbnet", tmp_path / "new", *small, "--resume")
    refused(InvalidInputError, "10 people to train on: a batch is 11", "nbnet", run, "--batch-size", "11")
    refused(InvalidInputError, "channels=100: must be a multiple of 256", "nbnet", run, "--channels", "100")
    weights = run / "nbnet.safetensors"
    with pytest.raises(InvalidInputError, match="ID vectors of sface, not those of facenet"):
        TrainedNetwork("nbnet", weights, "facenet")
    with pytest.raises(InvalidInputError, match="has weights of nbnet: vec2face needs its own"):
        TrainedNetwork("vec2face", weights, "sface")
    (tmp_path / "x.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match=r"x.safetensors is no weights file"):
        TrainedNetwork("nbnet", tmp_path / "x.safetensors", "sface")
    start = ("--start", str(tmp_path / "x.safetensors"))
    refused(CheckpointError, "x.safetensors is no weights file", "nbnet", tmp_path / "new", *start)
    refused(CheckpointError, "nbnet.safetensors does not fit", "nbnet", tmp_path / "new", "--start", str(weights))


def test_block_a_sees_more_maps_than_block_b() -> None:
    sizes = {kind: sum(p.numel() for p in NbNet(DIM, kind).parameters()) for kind in ("A", "B")}
    assert sizes["A"] > 1.2 * sizes["B"]
    assert NbNet(DIM, "A")(torch.zeros(2, DIM)).shape == (2, 3, 64, 64)


def test_the_vector_counts_less_at_finer_scales() -> None:
    weights = scale_weights(5)
    assert weights[0] == 1.0 and weights == sorted(weights, reverse=True)
    assert weights[1] / weights[0] == pytest.approx(weights[4] / weights[3])
    assert Generator(DIM)(torch.zeros(2, DIM)).shape == (2, 3, 64, 64)


def test_metric_loss_is_least_for_pictures_as_far_apart_as_their_vectors() -> None:
    vectors = torch.nn.functional.normalize(torch.randn(6, 12, generator=torch.Generator().manual_seed(0)), dim=1)
    images = vectors.reshape(6, 3, 2, 2)
    assert metric_loss(images, images, vectors).item() == pytest.approx(0.0, abs=1e-5)
    assert metric_loss(images[[1, 0, 3, 2, 5, 4]], images, vectors).item() > 0.3


def published(weights: Mapping[str, torch.Tensor], file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    torch.save(dict(weights), file)
    monkeypatch.setattr(vgg, "PUBLISHED_SHA256", vgg.file_sha256(file)[:8])
    return file


def test_perceptual_loss_needs_the_published_vgg(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "vgg19.pth"
    torch.save({"x": torch.zeros(1)}, file)
    with pytest.raises(EngineError, match="that of torchvision's VGG-19 begins with dcbb9e9d"):
        Vgg19(file)
    widths = [3, 4, 4, 6, 6, 8, 8]
    weights = {}
    for (number, _), before, width in zip(vgg.CONVOLUTIONS, widths[:-1], widths[1:], strict=True):
        weights[f"features.{number}.weight"] = torch.randn(width, before, 3, 3)
        weights[f"features.{number}.bias"] = torch.zeros(width)
    published(weights, file, monkeypatch)
    assert Vgg19(file).maps(torch.zeros(2, 3, 64, 64)).shape == (2, 8, 16, 16)
    small = ("--blocks", "B", "--steps", "1", "--vgg", str(file))
    assert train(data, "nbnet", tmp_path / "run", *small) is None
