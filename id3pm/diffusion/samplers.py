"""One step of a mixed batch (`update`), and the plain loop over all steps (`sample`).

Every row brings its own coefficients (`plans.gather`), so one batch may mix samplers, step counts, timesteps, guidance
and thresholds. All arithmetic is float32, elementwise or within a row. Nothing is summed across rows: given
bit-identical U-Net outputs, a row's result is bit-identical in any batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from id3pm.diffusion.coefficients import BoolArray, Float32Array, IndexArray, RowCoefficients, StepPlan, gather
from id3pm.diffusion.guidance import clip_x0, guide, make_consistent
from id3pm.diffusion.plans import plan
from id3pm.diffusion.rows import Array, Columns, columns_beside
from id3pm.diffusion.start import first_input
from id3pm.formats.array_api import array_namespace

__all__ = ["RowCoefficients", "StepPlan", "gather", "plan", "sample", "update"]


ModelFn = Callable[[Array, Float32Array, IndexArray, BoolArray], Array]
NoiseFn = Callable[[int, int], Array]


def update(
    x: Array,
    model_output: Array,
    rows: RowCoefficients | Columns,
    *,
    unconditional: Array | None = None,
    x0_prev: Array | None = None,
    noise: Array | None = None,
    low_res: Array | None = None,
) -> tuple[Array, Array]:
    """One step of every row.

    Args:
        x: x_t, float32 [N, C, H, W].
        model_output: The U-Net's conditional output, float32 [N, C or 2C, H, W]: eps (or v), then the variance
            channels.
        rows: Each row's coefficients: on the host, from where they are copied to the device of `x`, or there already.
        unconditional: The U-Net's unconditional output for the guided rows alone, in their order, float32
            [G, C or 2C, H, W]; its variance channels are ignored. `None` where no row is guided.
        x0_prev: The x0 that each row's previous step returned, float32 [N, C, H, W]; read in the rows of multistep
            samplers alone, `None` where there are none.
        noise: Standard normal numbers for the noisy rows alone, in their order, float32 [K, C, H, W]; `None` where
            no row needs any.
        low_res: The small images of super-resolution, float32 [N, C, h, w]; read in the rows with consistency alone,
            `None` where there are none.

    Returns:
        The next x and the clipped x0, both float32 [N, C, H, W], new arrays.

    Raises:
        ValueError: Rows or channels are missing, or there are too many.
    """
    of = rows if isinstance(rows, Columns) else columns_beside(rows, x)
    channels = x.shape[1]
    predicted = model_output[:, :channels, ...]
    unguided = None if unconditional is None else unconditional[:, :channels, ...]
    predicted = guide(predicted, unguided, of.guidance_scale, of.guided)
    x0 = of.a * x
    x0 -= of.b * predicted
    x0 = clip_x0(x0, of.thresholds)
    if len(of.consistent):
        if low_res is None:
            some = of.consistent.rows.tolist()
            raise ValueError(f"rows {some} must agree with their small images: pass low_res")
        agreed = make_consistent(of.consistent.take(x0), of.consistent.take(low_res), of.consistency)
        x0 = of.consistent.put(x0, agreed)
    x_next = of.c_x * x
    x_next += of.c_x0 * x0
    # Only the rows that ask for a term get it: even adding zero could turn -0.0 into 0.0, or carry a neighbour's NaN.
    if len(of.multistep):
        if x0_prev is None:
            raise ValueError(f"rows {of.multistep.rows.tolist()} use the previous step's x0: pass x0_prev")
        x_next = of.multistep.add(x_next, of.c_prev * of.multistep.take(x0_prev))
    given = 0 if noise is None else noise.shape[0]
    if given != len(of.noisy):
        raise ValueError(f"{given} rows of noise for {len(of.noisy)} noisy rows: give one for each, in order")
    if noise is not None and len(of.noisy):
        x_next = of.noisy.add(x_next, _noise_std(model_output, channels, of) * noise)
    return x_next, x0


def _noise_std(model_output: Array, channels: int, of: Columns) -> Array:
    """Standard deviation of the noise of the noisy rows, [K, 1, 1, 1], or [K, C, H, W] where any is learned.

    Learned: exp of half of v max + (1 - v) min, the U-Net's v shifted from [-1, 1] to [0, 1] (Nichol and Dhariwal 2021,
    eq. 15).
    """
    xp = array_namespace(model_output)
    if not len(of.learned):
        return of.std
    if model_output.shape[1] != 2 * channels:
        raise ValueError(
            f"model output has {model_output.shape[1]} channels: learned variance needs {2 * channels} (eps, variance)"
        )
    fraction = of.learned.take(model_output[:, channels:, ...]) + 1.0
    fraction /= 2.0
    low = 1.0 - fraction
    low *= of.min_log_variance
    fraction *= of.max_log_variance
    fraction += low
    fraction *= 0.5
    std = xp.exp(fraction)
    if of.learned_noisy.everything:
        return std
    everywhere = xp.broadcast_to(of.std, (len(of.noisy), *std.shape[1:]))
    return of.learned_noisy.put(everywhere, std)


def sample(
    model: ModelFn, x_start: Array, plans: Sequence[StepPlan], noise_fn: NoiseFn, low_res: Array | None = None
) -> Array:
    """The reference loop: a batch from noise to images, every row by its own plan, one U-Net call per iteration.

    Rows with shorter plans leave early. The step scheduler does the same with rows that come and go.

    Args:
        model: `model(x, timesteps, rows, conditional)` -> [M, C or 2C, H, W], where row j of this call belongs to
            image `rows[j]` (int [M]) at `timesteps[j]` (float32 [M]), with that image's condition where
            `conditional[j]` (bool [M]), else with the null vectors.
        x_start: Noise, float32 [N, 3, H, W] (draw 0 of the seed contract); x_T is this and what the plans begin with.
        plans: One plan per row.
        noise_fn: `noise_fn(row, draw)` -> [C, H, W], the noise that the row's step number `draw` (1 = noisiest) adds.
        low_res: As for `update`; read in the rows that start from it, too.

    Returns:
        The images, float32 [N, C, H, W].
    """
    xp = array_namespace(x_start)
    x, x0 = xp.asarray(x_start, copy=True), xp.zeros_like(x_start)
    for row, row_plan in enumerate(plans):
        if row_plan.start is not None:
            x[row, ...] = first_input(x[row, ...], row_plan.start, None if low_res is None else low_res[row, ...])
    for step in range(max(len(row_plan) for row_plan in plans)):
        active = np.flatnonzero([step < len(row_plan) for row_plan in plans])
        rows = gather([plans[row] for row in active], [step] * len(active))
        x_active = x[active, ...]
        outputs = model(
            xp.concat([x_active, x_active[rows.guided_rows, ...]]),
            np.concatenate([rows.timestep, rows.timestep[rows.guided_rows]]),
            np.concatenate([active, active[rows.guided_rows]]),
            np.arange(len(active) + len(rows.guided_rows)) < len(active),
        )
        noise = [noise_fn(int(row), step + 1) for row in active[rows.noise_rows]]
        x[active, ...], x0[active, ...] = update(
            x_active,
            outputs[: len(active)],
            rows,
            unconditional=outputs[len(active) :] if len(rows.guided_rows) else None,
            x0_prev=x0[active, ...],
            noise=xp.stack(noise) if noise else None,
            low_res=None if low_res is None else low_res[active, ...],
        )
    return x
