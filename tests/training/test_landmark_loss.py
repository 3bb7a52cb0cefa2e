"""The landmark network has a gradient, says what the deployed one says, and its loss teaches attributes alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from tiny_training import TINY_BASE, face_arrays

from id3pm.attributes import fields_of
from id3pm.errors import ConfigError
from id3pm.face.landmarks import FaceMesh
from id3pm.face.measures import measure
from id3pm.formats.images import to_chw
from id3pm.formats.photo_decoding import decode_photo
from id3pm.training.augmentation import turned
from id3pm.training.data import FaceBatches
from id3pm.training.identity_loss import crop_to_image
from id3pm.training.landmark_loss import FIELD_WEIGHTS, LandmarkLoss
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


def test_measures_are_those_of_the_deployed_network(loss: LandmarkLoss, faces: np.ndarray) -> None:
    fives = np.repeat(FIVE[None], len(faces), axis=0)
    found = loss.measure(images(faces), torch.from_numpy(crop_to_image(fives))).numpy()
    measured = measure(FaceMesh(threads=1).find(faces, fives)[0])
    fields = fields_of("landmarks")
    expected = np.stack([(measured[field.name] - field.offset) / field.scale for field in fields], axis=1)
    # The deployed network looks twice, and OpenCV interpolates in steps of 1/32 of a pixel.
    apart = np.abs(found - expected)[:, 1:].mean()
    assert apart < 0.3
    assert np.abs(np.roll(expected, 1, axis=0) - expected)[:, 1:].mean() > 2 * apart  # another face is further away
    np.testing.assert_allclose(found[:, 0], expected[:, 0], atol=2.0 / 12.5)  # two degrees


@pytest.mark.parametrize("degrees", [-20.0, 12.0])
def test_a_tilted_picture_measures_that_much_more_roll_and_nothing_else(
    loss: LandmarkLoss, faces: np.ndarray, degrees: float
) -> None:
    fives = np.repeat(FIVE[None], len(faces), axis=0)
    level = loss.measure(images(faces), torch.from_numpy(crop_to_image(fives))).numpy()
    pictures, points = zip(*(turned(face, FIVE, degrees) for face in faces), strict=True)
    found = loss.measure(images(np.stack(pictures)), torch.from_numpy(crop_to_image(np.stack(points)))).numpy()
    np.testing.assert_allclose(found[:, 0] - level[:, 0], degrees / 12.5, atol=1.0 / 12.5)
    assert np.abs(found - level)[:, 1:].mean() < 0.15


def test_the_loss_is_zero_at_what_was_asked_for_and_falls_along_its_gradient(
    loss: LandmarkLoss, faces: np.ndarray
) -> None:
    alignments = torch.from_numpy(crop_to_image(np.repeat(FIVE[None], 4, axis=0)))
    share = torch.tensor([0.25, 0.25, 0.81, 0.81])
    asked = loss.measure(images(faces), alignments).detach()
    torch.testing.assert_close(loss(images(faces), alignments, asked, share), torch.zeros(4), rtol=0, atol=1e-6)
    guess = images(faces).roll(1, 0).requires_grad_()
    before = loss(guess, alignments, asked, share)
    assert (before > 0.01).all()
    before.sum().backward()
    assert guess.grad is not None and (guess.grad.abs().amax(dim=(1, 2, 3)) > 0).all()
    step = guess.detach() - 1.0 * guess.grad / guess.grad.square().sum().sqrt()
    assert loss(step, alignments, asked, share).sum() < before.sum()


def test_only_fields_that_are_given_count(loss: LandmarkLoss, faces: np.ndarray) -> None:
    alignments = torch.from_numpy(crop_to_image(FIVE[None]))
    found = loss.measure(images(faces[:1]), alignments).detach()
    yaw = torch.full_like(found, -1.0)
    yaw[:, 1] = found[:, 1] + 2.0
    share = torch.tensor([0.25])
    # Smooth L1 of 2 is 1.5; the root of the share is a half.
    expected = 0.75 * FIELD_WEIGHTS["yaw"]
    assert loss(images(faces[:1]), alignments, yaw, share).item() == pytest.approx(expected, abs=1e-3)


def test_a_resting_value_counts_where_a_field_is_free(loss: LandmarkLoss, faces: np.ndarray) -> None:
    upright = LandmarkLoss(resting={"roll": 0.0})
    alignments = torch.from_numpy(crop_to_image(np.repeat(FIVE[None], 2, axis=0)))
    pictures, share = images(faces[:2]), torch.tensor([0.25, 0.25])
    free = torch.full((2, 7), -1.0)
    asked = free.clone()
    asked[:, 0] = 2.0  # roll 0 of +- 25 degrees, as 0 .. 4
    torch.testing.assert_close(upright(pictures, alignments, free, share), loss(pictures, alignments, asked, share))
    asked[:, 0] = 4.0
    torch.testing.assert_close(upright(pictures, alignments, asked, share), loss(pictures, alignments, asked, share))
    assert (loss(pictures, alignments, free, share) == 0).all()


def test_rows_without_attributes_or_with_too_much_noise_teach_nothing(loss: LandmarkLoss, faces: np.ndarray) -> None:
    alignments = torch.from_numpy(crop_to_image(np.repeat(FIVE[None], 4, axis=0)))
    nothing = torch.full((4, 7), -1.0)
    attributes = nothing.clone()
    attributes[1:, 3] = 4.0
    share = torch.tensor([0.5, 0.5, 0.001, 0.99])
    values = loss(images(faces), alignments, attributes, share)
    assert (values > 0).tolist() == [False, True, False, False]
    values = loss(images(faces).requires_grad_(), alignments, nothing, share)
    values.sum().backward()  # processes that have no such row take part in the step all the same
    assert (values == 0).all()


class ConstantLoss(LandmarkLoss):
    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def forward(self, predicted_x0: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        return predicted_x0.abs().mean(dim=(1, 2, 3))


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
        for _ in range(3):  # zero layers of a fresh network keep the gradient from its embeddings for two steps
            made.train_step()
        moved[speed] = {name: tensor.detach() - before[name] for name, tensor in made.unet.named_parameters()}
    for name, slow in moved[1.0].items():
        factor = 5.0 if name.startswith("attribute_embed.") else 1.0
        assert slow.abs().max() > 0 or factor == 1.0, name
        torch.testing.assert_close(moved[5.0][name], factor * slow, rtol=1e-3, atol=1e-6, msg=name)


def test_a_landmark_loss_without_attributes_is_refused() -> None:
    with pytest.raises(ConfigError, match="landmark_loss=1.0: must be 0 or more, and 0 without attributes"):
        dataclasses.replace(TINY_BASE, landmark_loss=1.0)
