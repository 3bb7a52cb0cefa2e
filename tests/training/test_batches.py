"""Batches follow from (seed, step): every image once an epoch, the vectors of the flip, dropout at its rate."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from tiny_training import TINY_BASE, TINY_SR, face_arrays

from id3pm.errors import ConfigError, InvalidInputError
from id3pm.formats.images import area_reduce, to_chw
from id3pm.training.augmentation import drop_conditions, drop_fields, turned
from id3pm.training.data import FaceBatches, SuperResolutionBatches
from id3pm.training.presets import TrainConfig
from id3pm.training.random_streams import rows_of_step, step_rng


def config(**changes: object) -> TrainConfig:
    return dataclasses.replace(TINY_BASE, **changes)  # type: ignore[arg-type]


def test_every_image_is_seen_once_in_every_epoch_across_batch_borders() -> None:
    seen = np.concatenate([rows_of_step(3, step, batch_size=4, count=10) for step in range(5)])
    for epoch in (seen[:10], seen[10:]):
        assert sorted(epoch) == list(range(10))
    assert not np.array_equal(seen[:10], seen[10:])


def test_a_batch_larger_than_the_data_set_wraps_around() -> None:
    assert sorted(rows_of_step(0, 0, batch_size=6, count=3)) == [0, 0, 1, 1, 2, 2]


def test_the_same_step_gives_the_same_batch_and_another_step_another() -> None:
    first, again, other = (FaceBatches(face_arrays(), config()).at(step) for step in (5, 5, 6))
    assert torch.equal(first.noise, again.noise) and torch.equal(first.x0, again.x0) and torch.equal(first.t, again.t)
    assert not torch.equal(first.noise, other.noise)


def test_processes_share_a_batch_without_overlap() -> None:
    batch = FaceBatches(face_arrays(), config()).at(0)
    shares = [batch.share(rank, 2, torch.device("cpu")) for rank in range(2)]
    assert torch.equal(torch.stack([share.noise for share in shares], dim=1).flatten(0, 1), batch.noise)


def test_flipped_images_come_with_the_vectors_of_the_flip() -> None:
    arrays = face_arrays()
    batches = FaceBatches(arrays, config(condition_dropout=0.0, flip=True, batch_size=16))
    flips = 0
    for step in range(8):
        batch = batches.at(step)
        for x0, vector in zip(batch.x0.numpy(), batch.conditions["identity"].numpy(), strict=True):
            plain = np.flatnonzero((arrays["vectors"] == vector).all(axis=1))
            mirrored = np.flatnonzero((arrays["flipped_vectors"] == vector).all(axis=1))
            assert len(plain) + len(mirrored) == 1
            image = arrays["images"][plain[0]] if len(plain) else arrays["images"][mirrored[0]][:, ::-1]
            np.testing.assert_array_equal(x0, to_chw(np.ascontiguousarray(image)))
            flips += len(mirrored)
    assert 40 < flips < 88  # 128 fair coins, four standard deviations


def test_without_flip_no_image_is_mirrored() -> None:
    arrays = face_arrays()
    batch = FaceBatches(arrays, config(condition_dropout=0.0, flip=False)).at(0)
    for vector in batch.conditions["identity"].numpy():
        assert (arrays["vectors"] == vector).all(axis=1).any()


@pytest.mark.parametrize("null", [0.0, -1.0])
@pytest.mark.parametrize("rate", [0.0, 0.1, 1.0])
def test_conditions_are_dropped_whole_and_at_the_rate(rate: float, null: float) -> None:
    vectors = np.full((20_000, 4), 0.5, np.float32)
    dropped = drop_conditions(vectors, rate, null, step_rng(0, 1, 0)).numpy()
    rows = (dropped == null).all(axis=1)
    assert ((dropped == 0.5).all(axis=1) | rows).all()
    assert rows.mean() == pytest.approx(rate, abs=0.01)


def test_attributes_are_dropped_to_minus_one_independently_of_the_identity() -> None:
    identity, attributes = dropped(condition_dropout=0.5)
    for both in (identity & attributes, identity & ~attributes, ~identity & attributes, ~identity & ~attributes):
        assert both.float().mean().item() == pytest.approx(0.25, abs=0.08)


def test_joint_dropout_drops_the_attributes_wherever_the_identity_is_dropped() -> None:
    identity, attributes = dropped(condition_dropout=0.5, joint_dropout=True)
    assert not (identity & ~attributes).any()
    assert (~identity & attributes).float().mean().item() == pytest.approx(0.25, abs=0.08)


def test_flipped_images_come_with_the_attributes_of_the_flip() -> None:
    rng = np.random.default_rng(1)
    arrays = {**face_arrays(), "attributes": rng.uniform(0.1, 0.9, (60, 7)).astype(np.float32)}
    batch = FaceBatches(arrays, with_attributes(condition_dropout=0.0, flip=True, batch_size=60)).at(0)
    flips = 0
    for vector, seen in zip(batch.conditions["identity"].numpy(), batch.conditions["attributes"].numpy(), strict=True):
        plain = np.flatnonzero((arrays["vectors"] == vector).all(axis=1))
        row = plain[0] if len(plain) else np.flatnonzero((arrays["flipped_vectors"] == vector).all(axis=1))[0]
        expected = arrays["attributes"][row].copy()
        if not len(plain):
            expected[:2] = 4 - expected[:2]  # roll and yaw, whose 0 degrees are at 2
            flips += 1
        np.testing.assert_allclose(seen, expected, atol=1e-6)
    assert 15 < flips < 45


def test_a_random_part_of_the_fields_is_left_out_any_number_equally_often() -> None:
    vectors = np.full((40_000, 7), 0.5, np.float32)
    seen = drop_fields(vectors, 0.8, step_rng(0, 1, 0))
    assert set(np.unique(seen)) == {-1.0, 0.5}
    counts = np.bincount((seen == -1.0).sum(axis=1), minlength=8) / len(seen)
    np.testing.assert_allclose(counts, [0.2 + 0.8 / 8, *[0.8 / 8] * 7], atol=0.01)
    np.testing.assert_allclose((seen == -1.0).mean(axis=0), 0.4, atol=0.01)  # no field more often than another


@pytest.mark.parametrize(
    "changes", [{"field_dropout": 0.5, "attribute_set": 1}, {"attribute_set": None}, {"tilt": 91.0}]
)
def test_settings_that_do_not_fit_the_attributes_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="attribute.set|tilt=91.0"):
        with_attributes(**changes)


def test_half_of_the_images_whose_roll_is_given_are_tilted_to_a_roll_that_is_told() -> None:
    rng = np.random.default_rng(1)
    arrays = {**face_arrays(), "attributes": rng.uniform(1.9, 2.1, (60, 7)).astype(np.float32)}
    settings = {"condition_dropout": 0.3, "field_dropout": 1.0, "flip": False, "batch_size": 60}
    plain = FaceBatches(arrays, with_attributes(**settings)).at(0)
    tilted = FaceBatches(arrays, with_attributes(tilt=25.0, **settings)).at(0)
    before, after = plain.conditions["attributes"].numpy(), tilted.conditions["attributes"].numpy()
    moved = (plain.x0 != tilted.x0).flatten(1).any(dim=1).numpy()
    np.testing.assert_array_equal(before[:, 1:], after[:, 1:])
    np.testing.assert_array_equal(moved, before[:, 0] != after[:, 0])
    given = before[:, 0] != -1.0
    assert not moved[~given].any() and 0.2 < moved[given].mean() < 0.8
    degrees = after[moved, 0] * 12.5 - 25.0
    assert -25.0 <= degrees.min() < -10.0 and 10.0 < degrees.max() <= 25.0


def test_turning_is_clockwise_and_takes_the_landmarks_along() -> None:
    image = np.zeros((41, 41, 3), np.uint8)
    image[5:8, 19:22] = 255  # above the middle
    picture, points = turned(image, np.array([[20.0, 6.0]]), 90.0)
    np.testing.assert_allclose(points, [[34.0, 20.0]], atol=1e-9)  # to its right
    assert picture[20, 34].tolist() == [255, 255, 255] and picture.sum() == image.sum()


def with_attributes(**changes: object) -> TrainConfig:
    unet = dataclasses.replace(TINY_BASE.unet, attribute_dim=7)
    return config(unet=unet, **{"attribute_set": "landmarks", **changes})


def dropped(**changes: object) -> tuple[torch.Tensor, torch.Tensor]:
    """Which of 600 rows have no identity, and which no attributes."""
    arrays = {**face_arrays(), "attributes": np.full((60, 7), 0.5, np.float32)}
    batches = FaceBatches(arrays, with_attributes(batch_size=60, **changes))
    conditions = [batches.at(step).conditions for step in range(10)]
    identity = torch.cat([rows["identity"] for rows in conditions]).eq(0.0).all(dim=1)
    return identity, torch.cat([rows["attributes"] for rows in conditions]).eq(-1.0).all(dim=1)


def test_time_steps_cover_the_whole_process() -> None:
    batches = FaceBatches(face_arrays(), config(batch_size=60))
    t = torch.cat([batches.at(step).t for step in range(40)])
    assert 0 <= t.min() < 5 and 994 < t.max() < 1000


def test_data_that_do_not_fit_the_network_are_refused() -> None:
    arrays = face_arrays()
    with pytest.raises(InvalidInputError, match="8 numbers"):
        FaceBatches(arrays, config(unet=dataclasses.replace(TINY_BASE.unet, identity_dim=9)))
    with pytest.raises(InvalidInputError, match="attributes"):
        FaceBatches(arrays, with_attributes())
    with pytest.raises(InvalidInputError, match="needs larger"):
        SuperResolutionBatches(arrays["images"][:, :8], [], TINY_SR)
    with pytest.raises(InvalidInputError, match="needs photographs"):
        SuperResolutionBatches(arrays["images"], [], dataclasses.replace(TINY_SR, photo_share=0.5))


def test_low_resolution_side_is_the_area_mean_of_the_high_resolution_side() -> None:
    photo = np.full((40, 40, 3), 200, np.uint8)
    batches = SuperResolutionBatches(face_arrays()["images"], [photo], dataclasses.replace(TINY_SR, photo_share=0.5))
    batch = batches.at(0)
    assert batch.x0.shape[2:] == (16, 16) and batch.conditions["low_res"].shape[2:] == (4, 4)
    mean = torch.nn.functional.avg_pool2d(batch.x0, 4)
    assert (mean - batch.conditions["low_res"]).abs().max() <= 0.5 / 127.5 + 1e-6
    from_photo = (batch.x0 == 200 / 127.5 - 1).flatten(1).all(dim=1)
    assert 0 < from_photo.sum() < len(from_photo)


def test_area_reduction_rounds_to_nearest() -> None:
    image = np.zeros((1, 2, 2, 3), np.uint8)
    image[0, 0, 0] = 3
    assert area_reduce(image, 2).tolist() == [[[[1, 1, 1]]]]
