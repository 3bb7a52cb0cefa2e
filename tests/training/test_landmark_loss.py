"""The landmark network has a gradient, says what the deployed one says, and its loss teaches attributes alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from tiny_training import TINY_BASE, face_arrays

from id3pm.errors import ConfigError
from id3pm.face.align import similarity_transform
from id3pm.face.landmarks import FIRST_LOOK, FaceMesh
from id3pm.images import decode_photo, to_chw
from id3pm.training.data import FaceBatches
from id3pm.training.identity_loss import crop_to_image
from id3pm.training.landmark_loss import EYE_DISTANCE, LandmarkLoss
from id3pm.training.loop import Trainer

PEOPLE = Path(__file__).parents[2] / "demo" / "people"
FIVE = np.array([[23.0, 27.0], [42.0, 27.0], [32.0, 37.0], [25.0, 47.0], [40.0, 47.0]])
"""Where eyes, nose and mouth of a generated face about are."""


@pytest.fixture(scope="module")
def loss() -> LandmarkLoss:
    return LandmarkLoss()


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    """Four generated faces, uint8 [4, 64, 64, 3]."""
    return np.stack([decode_photo((PEOPLE / f"0{number}.png").read_bytes()) for number in range(1, 5)])


def images(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(to_chw(pixels))


def test_landmarks_are_those_of_the_deployed_network_on_the_same_crop(loss: LandmarkLoss, faces: np.ndarray) -> None:
    fives = np.repeat(FIVE[None], len(faces), axis=0)
    found = loss.find(images(faces), torch.from_numpy(crop_to_image(fives))).numpy()
    move = similarity_transform(FIVE, FIRST_LOOK)
    mesh = FaceMesh(threads=1)
    crops = np.stack(
        [
            cv2.warpAffine(face, move, (192, 192), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            for face in faces
        ]
    )
    expected, _ = mesh._look(crops, [np.eye(2, 3)] * len(faces))
    assert np.abs(found * EYE_DISTANCE - expected).mean() < 0.3  # pixels of 192: OpenCV interpolates in steps of 1/32


def test_the_loss_is_zero_on_the_truth_and_falls_along_its_gradient(loss: LandmarkLoss, faces: np.ndarray) -> None:
    alignments = torch.from_numpy(crop_to_image(np.repeat(FIVE[None], 2, axis=0)))
    truth, other = images(faces[:2]), images(faces[2:])
    attributes, share = torch.zeros(2, 7), torch.tensor([0.25, 0.81])
    assert torch.equal(loss(truth, truth, alignments, attributes, share), torch.zeros(2))
    guess = other.clone().requires_grad_()
    before = loss(guess, truth, alignments, attributes, share)
    assert (before > 0.01).all()
    before.sum().backward()
    assert guess.grad is not None and (guess.grad.abs().amax(dim=(1, 2, 3)) > 0).all()
    step = guess.detach() - 2.0 * guess.grad / guess.grad.square().sum().sqrt()
    assert loss(step, truth, alignments, attributes, share).sum() < before.sum()


def test_rows_without_attributes_or_with_too_much_noise_teach_nothing(loss: LandmarkLoss, faces: np.ndarray) -> None:
    alignments = torch.from_numpy(crop_to_image(np.repeat(FIVE[None], 4, axis=0)))
    attributes = torch.tensor([[-1.0, -1.0], [-1.0, 0.4], [0.5, 0.4], [0.5, 0.4]])
    share = torch.tensor([0.5, 0.5, 0.001, 0.99])
    values = loss(images(faces).roll(1, 0), images(faces), alignments, attributes, share)
    assert (values > 0).tolist() == [False, True, False, False]
    nothing = loss(images(faces).requires_grad_(), images(faces), alignments, torch.full((4, 2), -1.0), share)
    nothing.sum().backward()  # processes that have no such row take part in the step all the same
    assert (nothing == 0).all()


class ConstantLoss(LandmarkLoss):
    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def forward(self, predicted_x0: torch.Tensor, x0: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        return (predicted_x0 - x0).abs().mean(dim=(1, 2, 3))


def trainer(tmp_path: Path, **changes: object) -> Trainer:
    unet = dataclasses.replace(TINY_BASE.unet, attribute_dim=7)
    config = dataclasses.replace(TINY_BASE, unet=unet, attribute_set="landmarks", **changes)  # type: ignore[arg-type]
    arrays = {**face_arrays(), "attributes": np.full((60, 7), 0.5, np.float32)}
    arrays["detections"][:, 4:14] = (FIVE / 4).reshape(-1)
    landmarks = ConstantLoss() if config.landmark_loss else None
    return Trainer(config, FaceBatches(arrays, config), tmp_path, {}, Accelerator(cpu=True), None, landmarks)


def test_the_loss_is_added_with_its_weight(tmp_path: Path) -> None:
    plain, with_loss = (trainer(tmp_path, landmark_loss=weight).train_step() for weight in (0.0, 0.5))
    assert "landmarks" not in plain
    assert with_loss["loss"] == pytest.approx(plain["loss"] + 0.5 * with_loss["landmarks"], rel=1e-5)


def test_the_embedding_of_attributes_may_learn_faster_than_the_rest(tmp_path: Path) -> None:
    moved = {}
    for speed in (1.0, 5.0):
        made = trainer(tmp_path, attribute_speed=speed, warmup_steps=0, grad_clip=None)
        before = {name: tensor.detach().clone() for name, tensor in made.unet.named_parameters()}
        for _ in range(2):  # in the first step of a fresh network, only its last layer has a gradient
            made.train_step()
        moved[speed] = {name: tensor.detach() - before[name] for name, tensor in made.unet.named_parameters()}
    for name, slow in moved[1.0].items():
        factor = 5.0 if name.startswith("attribute_embed.") else 1.0
        assert slow.abs().max() > 0, name
        torch.testing.assert_close(moved[5.0][name], factor * slow, rtol=1e-3, atol=1e-6, msg=name)


def test_a_landmark_loss_without_attributes_is_refused() -> None:
    with pytest.raises(ConfigError, match="landmark_loss=1.0: must be 0 or more, and 0 without attributes"):
        dataclasses.replace(TINY_BASE, landmark_loss=1.0)
