"""Batches of a training split: images, noise and conditions, each batch a function of (seed, step)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from id3pm.attributes import fields_of, mirrored
from id3pm.errors import InvalidInputError
from id3pm.formats.images import area_reduce, to_chw
from id3pm.formats.mapped_images import MappedImages
from id3pm.training.augmentation import drop_conditions, drop_fields, turned
from id3pm.training.batch import Batch, Batches, RolloutDraws
from id3pm.training.embedding import mirror_landmarks
from id3pm.training.identity_loss import crop_to_image
from id3pm.training.photographs import packaged_photographs, random_crops
from id3pm.training.presets import TrainConfig
from id3pm.training.random_streams import JITTER_STREAM, ROLLOUT_STREAM, ROW_STREAM, rows_of_step, step_rng
from id3pm.training.variation import altered_vectors, composed, jitter
from id3pm.unet.model import NULL_ATTRIBUTES, NULL_IDENTITY

TILTED = 0.5  # share of the images whose roll is given
SEED_LIMIT = np.iinfo(np.int64).max
ROLLOUT_STARTS = 3  # draws of noise that a rollout begins with


@dataclasses.dataclass(frozen=True)
class Faces:
    """Images of people in a batch.

    Attributes:
        images: uint8 [N, S, S, 3], RGB.
        vectors: ID vectors, float32 [N, D].
        points: Landmarks, float64 [N, 5, 2], pixels.
    """

    images: NDArray[np.uint8]
    vectors: NDArray[np.float32]
    points: NDArray[np.float64]


class FaceBatches:
    """Images with their conditions, for the base model.

    Args:
        arrays: A training split (`id3pm.formats.datasets.load`, or `load_mapped`).
        config: The run.

    Raises:
        InvalidInputError: The data do not fit the network.
    """

    def __init__(self, arrays: Mapping[str, Any], config: TrainConfig) -> None:
        self._arrays = arrays
        self._config = config
        self._mean = arrays["vectors"].mean(axis=0, dtype=np.float64)
        size, dim = arrays["images"].shape[1], arrays["vectors"].shape[1]
        unet = config.unet
        if size != unet.image_size:
            raise InvalidInputError(f"the images are {size} px: this network needs {unet.image_size}")
        if dim != unet.identity_dim:
            raise InvalidInputError(
                f"the ID vectors have {dim} numbers: this network needs {unet.identity_dim}; give "
                f"--identity-dim {dim}, or leave it out"
            )
        if unet.attribute_dim is not None and arrays.get("attributes", np.zeros((0, 0))).shape[1] != unet.attribute_dim:
            raise InvalidInputError(f"the data set has no attributes of length {unet.attribute_dim}")

    def at(self, step: int) -> Batch:
        """See `Batches.at`."""
        config = self._config
        rows = self._rows(step)
        rng = step_rng(config.seed, ROW_STREAM, step)
        flips = (rng.random(len(rows)) < 0.5) & config.flip
        faces = self._faces(rows, flips)
        images, points = faces.images, faces.points
        conditions = {"identity": drop_conditions(faces.vectors, config.condition_dropout, NULL_IDENTITY, rng)}
        if config.unet.attribute_dim is not None:
            conditions["attributes"] = self._attributes(rows, flips, conditions["identity"], rng)
        if config.tilt:
            images, points = self._tilt(images, points, conditions["attributes"], rng)
        batch = _noised(images, conditions, config, rng)
        if not (config.identity_loss or config.landmark_loss):
            return batch
        alignments = crop_to_image(points)
        rollouts = self._rollouts(step, faces.vectors, alignments) if config.rollouts else None
        if config.identity_jitter:
            rng = step_rng(config.seed, JITTER_STREAM, step)
            alignments = composed(alignments, jitter(len(alignments), config.identity_jitter, rng))
        return dataclasses.replace(batch, alignments=torch.from_numpy(alignments), rollouts=rollouts)

    def _rows(self, step: int) -> NDArray[np.int64]:
        """Numbers of the images of a step."""
        return rows_of_step(self._config.seed, step, self._config.batch_size, len(self._arrays["images"]))

    def _faces(self, rows: NDArray[np.int64], flips: NDArray[np.bool_]) -> Faces:
        """Images by number, mirrored where their flip is true."""
        arrays = self._arrays
        images = arrays["images"][rows]
        images[flips] = images[flips, :, ::-1]
        vectors = np.where(flips[:, None], arrays["flipped_vectors"][rows], arrays["vectors"][rows])
        return Faces(images, vectors, self._landmarks(rows, flips))

    def _rollouts(self, step: int, vectors: NDArray[np.float32], alignments: NDArray[np.float32]) -> RolloutDraws:
        config = self._config
        rng = step_rng(config.seed, ROLLOUT_STREAM, step)
        people = rng.integers(len(vectors), size=config.rollouts)
        wanted = altered_vectors(vectors, people, self._mean, config.altered_vectors, rng)
        generator = torch.Generator().manual_seed(int(rng.integers(SEED_LIMIT)))
        shape = (config.rollouts, 3, config.unet.image_size, config.unet.image_size)
        start = torch.randn((ROLLOUT_STARTS, *shape), generator=generator)
        noise = torch.randn(shape, generator=generator)
        return RolloutDraws(
            torch.from_numpy(wanted),
            torch.from_numpy(alignments[people]),
            start,
            noise,
            torch.from_numpy(jitter(config.rollouts, config.identity_jitter, rng)),
            torch.from_numpy(self._mean.astype(np.float32)),
            total=config.rollouts,
        )

    def _attributes(
        self, rows: NDArray[np.int64], flips: NDArray[np.bool_], identity: Tensor, rng: np.random.Generator
    ) -> Tensor:
        config = self._config
        assert config.attribute_set is not None  # TrainConfig sees to it
        seen = self._arrays["attributes"][rows].astype(np.float32)
        seen = np.where(flips[:, None], mirrored(seen, config.attribute_set), seen)
        if config.field_dropout:
            seen = drop_fields(seen, config.field_dropout, rng)
        attributes = drop_conditions(seen, config.condition_dropout, NULL_ATTRIBUTES, rng)
        if config.joint_dropout:
            attributes[(identity == NULL_IDENTITY).all(dim=1)] = NULL_ATTRIBUTES
        return attributes

    def _tilt(
        self, images: NDArray[np.uint8], points: NDArray[np.float64], attributes: Tensor, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """Images and landmarks, some turned to another roll, which is written into `attributes`.

        Only if the roll is given to the network: a face with a free roll is not rotated.
        """
        assert self._config.attribute_set is not None  # TrainConfig sees to it
        position, field = next(
            (place, field) for place, field in enumerate(fields_of(self._config.attribute_set)) if field.name == "roll"
        )
        rolls = attributes[:, position].numpy()
        wanted = rng.uniform(-self._config.tilt, self._config.tilt, len(rolls))
        chosen = (rolls != NULL_ATTRIBUTES) & (rng.random(len(rolls)) < TILTED)
        images, points = images.copy(), points.copy()
        for row in np.flatnonzero(chosen):
            angle = wanted[row] - (rolls[row] * field.scale + field.offset)
            images[row], points[row] = turned(images[row], points[row], angle)
            rolls[row] = (wanted[row] - field.offset) / field.scale
        return images, points

    def _landmarks(self, rows: NDArray[np.int64], flips: NDArray[np.bool_]) -> NDArray[np.float64]:
        points = self._arrays["detections"][rows][:, 4:14].reshape(-1, 5, 2)
        width = self._arrays["images"].shape[2]
        seen = [mirror_landmarks(face, width) if flip else face for face, flip in zip(points, flips, strict=True)]
        return np.stack(seen, dtype=np.float64)


class SuperResolutionBatches:
    """Pairs of an image and its fourfold area reduction, for the super-resolution model.

    Args:
        images: uint8 [M, S, S, 3], in memory or mapped, S at least `config.train_size`.
        photographs: Larger pictures, uint8 [H, W, 3] each, that a share `config.photo_share` of the rows is cut from.
        config: The run.

    Raises:
        InvalidInputError: The images are too small, or photographs are asked for and there are none.
    """

    def __init__(
        self,
        images: NDArray[np.uint8] | MappedImages,
        photographs: list[NDArray[np.uint8]],
        config: TrainConfig,
    ) -> None:
        if min(images.shape[1:3]) < config.train_size:
            raise InvalidInputError(
                f"the images are {images.shape[2]}x{images.shape[1]} px: training at {config.train_size} needs larger"
            )
        if config.photo_share and not photographs:
            raise InvalidInputError(f"photo_share={config.photo_share} needs photographs, and none were found")
        self._images = images
        self._photographs = photographs
        self._config = config

    def at(self, step: int) -> Batch:
        """See `Batches.at`."""
        config = self._config
        rows = rows_of_step(config.seed, step, config.batch_size, len(self._images))
        rng = step_rng(config.seed, ROW_STREAM, step)
        high = random_crops([self._images[row] for row in rows], config.train_size, rng)
        from_photo = np.flatnonzero(rng.random(len(rows)) < config.photo_share)
        if len(from_photo):
            picks = rng.integers(len(self._photographs), size=len(from_photo))
            high[from_photo] = random_crops([self._photographs[pick] for pick in picks], config.train_size, rng)
        flips = (rng.random(len(rows)) < 0.5) & config.flip
        high[flips] = high[flips, :, ::-1]
        unet = config.train_unet
        low = area_reduce(high, unet.image_size // (unet.low_res_size or 1))
        return _noised(high, {"low_res": torch.from_numpy(to_chw(low))}, config, rng)


def make_batches(config: TrainConfig, arrays: Mapping[str, Any]) -> Batches:
    """The batches of a run on a training split.

    Raises:
        InvalidInputError: The data do not fit the network.
    """
    if config.stage == "base":
        return FaceBatches(arrays, config)
    photographs = packaged_photographs(config.train_size) if config.photo_share else []
    return SuperResolutionBatches(arrays["images"], photographs, config)


def _noised(
    images: NDArray[np.uint8], conditions: dict[str, Tensor], config: TrainConfig, rng: np.random.Generator
) -> Batch:
    x0 = torch.from_numpy(to_chw(images))
    t = torch.from_numpy(rng.integers(config.diffusion.diffusion_steps, size=len(images)))
    # torch's generator is several times faster than numpy's for this many normals; its seed still comes from the step.
    generator = torch.Generator().manual_seed(int(rng.integers(SEED_LIMIT)))
    return Batch(x0, torch.randn(x0.shape, generator=generator), t, conditions)
