"""What the teacher makes by its bundle's own sampling: the images that a student's are compared with."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from id3pm.config import DiffusionConfig, SamplingOptions
from id3pm.diffusion.guidance import null_attributes, null_identity
from id3pm.diffusion.noise import STAGE_BASE, STAGE_SR, noise
from id3pm.diffusion.plans import plan, plan_from_schedule
from id3pm.diffusion.samplers import sample, update
from id3pm.diffusion.schedule import kept_schedule, steps_from
from id3pm.engines.base import Engine
from id3pm.formats.images import to_uint8

Floats = NDArray[np.float32]
Conditions = Mapping[str, Floats]
NULL_VECTORS = {"identity": null_identity, "attributes": null_attributes}


class Teacher:
    """A network and how it is sampled.

    Args:
        engine: The teacher's network.
        diffusion: Its process.
        sampling: How it is sampled, but for the guidance scale.
    """

    def __init__(self, engine: Engine, diffusion: DiffusionConfig, sampling: SamplingOptions) -> None:
        self._engine = engine
        self._diffusion = diffusion
        self._sampling = sampling

    def results(
        self, seeds: Sequence[int], scales: NDArray[np.float32] | None, conditions: Conditions
    ) -> NDArray[np.uint8]:
        """The images of some seeds.

        Args:
            seeds: One per image (seed contract of `id3pm.diffusion.noise`), [N].
            scales: Guidance scale of each, [N]; `None` for a stage without conditions.
            conditions: `identity` [N, D], `attributes` [N, A], `low_res` [N, 3, s, s].

        Returns:
            uint8 [N, S, S, 3].
        """
        config = self._engine.config
        stage = stage_number(config.low_res_size)
        shape = (3, config.image_size, config.image_size)
        given = [1.0] * len(seeds) if scales is None else scales.tolist()
        plans = [
            plan(self._diffusion, dataclasses.replace(self._sampling, guidance_scale=scale), config.learn_sigma)
            for scale in given
        ]
        image = sample(
            functools.partial(self._evaluate, conditions),
            np.stack([noise(seed, stage, 0, shape) for seed in seeds]),
            plans,
            lambda row, draw: noise(seeds[row], stage, draw, shape),
            conditions.get("low_res"),
        )
        pixels: NDArray[np.uint8] = to_uint8(image)
        return pixels

    def guided(
        self, x: Floats, timesteps: tuple[int, ...], places: NDArray[np.int64], scales: Floats, conditions: Conditions
    ) -> Floats:
        """What the network predicts from noisy images in one step, guidance and threshold included.

        Args:
            x: Noisy images, float32 [N, 3, S, S].
            timesteps: A student's, ascending.
            places: Which of them each image is at, [N]; 0 is the noisiest.
            scales: Guidance scale of each, [N].
            conditions: As of `results`.

        Returns:
            The clipped x0, float32 [N, 3, S, S].
        """
        how = SamplingOptions(sampler="ddim", dynamic_threshold=self._sampling.dynamic_threshold)
        steps = plan_from_schedule(kept_schedule(self._diffusion, timesteps), how, learn_sigma=False)
        rows = dataclasses.replace(steps.at(places), guidance_scale=scales, guided=np.not_equal(scales, 1.0))
        every, some = np.arange(len(x)), rows.guided_rows
        output = self._evaluate(
            conditions,
            np.concatenate([x, x[some]]),
            np.concatenate([rows.timestep, rows.timestep[some]]),
            np.concatenate([every, some]),
            np.arange(len(x) + len(some)) < len(x),
        )
        unconditional = output[len(x) :] if len(some) else None
        x0: Floats = update(x, output[: len(x)], rows, unconditional=unconditional)[1]
        return x0

    def finished(
        self, x: Floats, timestep: int, steps: int, scales: NDArray[np.float32], conditions: Conditions
    ) -> Floats:
        """The images that noisy images become by the teacher's ODE: ddim with eta 0, guidance and threshold included.

        A function of `x` alone, and sharp; what one step predicts is the mean of all images that `x` may mean
        (Salimans and Ho 2022, progressive distillation, for all remaining steps at once).

        Args:
            x: Noisy images, float32 [N, 3, S, S].
            timestep: Where they are.
            steps: Steps from there to the image, equally long in log SNR.
            scales: Guidance scale of each, [N].
            conditions: As of `results`.

        Returns:
            float32 [N, 3, S, S] in [-1, 1].
        """
        schedule = kept_schedule(self._diffusion, steps_from(self._diffusion, timestep, steps))
        how = SamplingOptions(sampler="ddim", dynamic_threshold=self._sampling.dynamic_threshold)
        plans = [
            plan_from_schedule(schedule, dataclasses.replace(how, guidance_scale=scale), learn_sigma=False)
            for scale in scales.tolist()
        ]
        images: Floats = sample(functools.partial(self._evaluate, conditions), x, plans, _no_noise)
        return images

    def close(self) -> None:
        """Frees the engine."""
        self._engine.close()

    def _evaluate(
        self,
        conditions: Conditions,
        x: Floats,
        timesteps: Floats,
        rows: NDArray[np.intp],
        conditional: NDArray[np.bool_],
    ) -> Floats:
        inputs: dict[str, Floats] = {"x": x, "timesteps": timesteps}
        for name, values in conditions.items():
            given = values[rows]
            if name in NULL_VECTORS:
                given[~conditional] = NULL_VECTORS[name](1, values.shape[1])
            inputs[name] = given
        most = self._engine.max_batch
        parts = []
        for start in range(0, len(x), most):
            part = {name: np.ascontiguousarray(array[start : start + most]) for name, array in inputs.items()}
            parts.append(np.asarray(self._engine.run(part)))
        return np.concatenate(parts)


def _no_noise(row: int, draw: int) -> Floats:
    raise AssertionError("ddim with eta 0 adds no noise")


def stage_number(low_res_size: int | None) -> int:
    """The stage in the seed contract."""
    return STAGE_BASE if low_res_size is None else STAGE_SR
