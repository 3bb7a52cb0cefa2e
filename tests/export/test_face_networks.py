"""The published FR networks are those of their repositories; tests/golden/make_face_networks_golden.py asked them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from id3pm.export.face import published as face_published
from id3pm.export.face.networks.mtcnn import OutputNet, ProposalNet, RefinementNet
from id3pm.face.encoders import unit
from id3pm.face.stage import FaceStage
from tests.export.thin_networks import with_made_up_weights, write_checkpoint
from tests.golden.face_network_cases import CROP_SIZES, made_up_crops
from tests.golden.unet_cases import shape_lines

GOLDEN = Path(__file__).parents[1] / "golden"
KEYS: Mapping[str, list[str]] = json.loads((GOLDEN / "face_networks.json").read_text())
OUTPUTS = np.load(GOLDEN / "face_networks.npz")
MTCNN: Mapping[str, Callable[[], nn.Module]] = {"pnet": ProposalNet, "rnet": RefinementNet, "onet": OutputNet}


@pytest.mark.parametrize("kind", KEYS)
def test_parameter_names_and_shapes_equal_the_originals(kind: str) -> None:
    with torch.device("meta"):
        network = MTCNN[kind]() if kind in MTCNN else face_published.new_network(kind)
    shapes = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
    assert sorted(shape_lines(shapes)) == sorted(KEYS[kind])


@pytest.mark.parametrize("kind", CROP_SIZES)
def test_vectors_equal_the_originals(kind: str) -> None:
    network = with_made_up_weights(kind, face_published.new_network)
    given = face_published.PUBLISHED[kind].preprocessing.network_input(made_up_crops(kind))
    with torch.no_grad():
        vectors = network(torch.from_numpy(given)).numpy()
    expected = OUTPUTS[f"{kind} output"]
    np.testing.assert_allclose(unit(vectors), unit(expected), atol=1e-5)
    assert np.abs(vectors - expected).max() <= 1e-5 * np.abs(expected).max()
    assert np.abs(unit(expected)[0] - unit(expected)[1]).max() > 1e-3, "two crops that look alike would prove little"


@pytest.mark.slow
@pytest.mark.parametrize("kind", CROP_SIZES)
def test_full_size_checkpoints_become_face_stages(kind: str, tmp_path: Path) -> None:
    from id3pm.export.face import build as face_models

    network = with_made_up_weights(kind, face_published.new_network)
    checkpoint = write_checkpoint(kind, network, tmp_path / face_published.PUBLISHED[kind].checkpoint)
    folder, built = face_models.build_face_models(tmp_path, f"{kind}:{checkpoint}")
    assert built
    stage = FaceStage.load(folder)
    encoded = stage._encoder.encode_batch(made_up_crops(kind))
    np.testing.assert_allclose(encoded, unit(OUTPUTS[f"{kind} output"]), atol=1e-5)
