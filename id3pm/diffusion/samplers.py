"""One step of a mixed batch (`update`), and the plain loop over all steps (`sample`).

Every row brings its own coefficients (`plans.gather`), so one batch may mix samplers, step counts, time steps, guidance
and thresholds. All arithmetic is float32, elementwise or within a row. Nothing is summed across rows: given
bit-identical U-Net outputs, a row's result is bit-identical in any batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from array_api_compat import array_namespace

from id3pm.diffusion.guidance import Array, add_rows, clip_x0, column, guide, make_consistent, put_rows, take_rows
from id3pm.diffusion.plans import BoolArray, Float32Array, IndexArray, RowCoefficients, StepPlan, gather, plan

__all__ = ["RowCoefficients", "StepPlan", "gather", "plan", "sample", "update"]


ModelFn = Callable[[Array, Float32Array, IndexArray, BoolArray], Array]
NoiseFn = Callable[[int, int], Array]


def update(
    x: Array,
    model_output: Array,
    rows: RowCoefficients,
    *,
    unconditional: Array | None = None,
    x0_prev: Array | None = None,
    noise: Array | None = None,
    low_res: Array | None = None,
) -> tuple[Array, Array]:
    """One step of every row.

    Args:
        x: x_t, float32 [N, C, H, W].
        model_output: The U-Net's conditional output, float32 [N, C or 2C, H, W]: eps, then the variance channels.
        rows: Each row's coefficients.
        unconditional: The U-Net's unconditional output for `rows.guided_rows` alone, in that order, float32
            [G, C or 2C, H, W]; its variance channels are ignored. `None` where no row is guided.
        x0_prev: The x0 that each row's previous step returned, float32 [N, C, H, W]; read in `rows.multistep_rows`
            alone, `None` where there are none.
        noise: Standard normal numbers for `rows.noise_rows` alone, in that order, float32 [K, C, H, W]; `None` where
            no row needs any.
        low_res: The small images of super-resolution, float32 [N, C, h, w]; read in `rows.consistent_rows` alone,
            `None` where there are none.

    Returns:
        The next x and the clipped x0, both float32 [N, C, H, W], new arrays.

    Raises:
        ValueError: Rows or channels are missing, or there are too many.
    """
    channels = x.shape[1]
    eps = model_output[:, :channels]
    eps_uncond = None if unconditional is None else unconditional[:, :channels]
    eps = guide(eps, eps_uncond, rows.guidance_scale, rows.guided_rows)
    x0 = column(rows.sqrt_recip_alphas_cumprod, x) * x
    x0 -= column(rows.sqrt_recipm1_alphas_cumprod, x) * eps
    x0 = clip_x0(x0, rows.percentile)
    if len(some := rows.consistent_rows):
        if low_res is None:
            raise ValueError(f"rows {some.tolist()} must agree with their small images: pass low_res")
        agreed = make_consistent(take_rows(x0, some), take_rows(low_res, some), rows.consistency[some])
        x0 = put_rows(x0, some, agreed)
    x_next = column(rows.c_x, x) * x
    x_next += column(rows.c_x0, x) * x0
    # Only the rows that ask for a term get it: even adding zero could turn -0.0 into 0.0, or carry a neighbour's NaN.
    if len(some := rows.multistep_rows):
        if x0_prev is None:
            raise ValueError(f"rows {some.tolist()} use the previous step's x0: pass x0_prev")
        add_rows(x_next, some, column(rows.c_prev[some], x) * take_rows(x0_prev, some))
    given = 0 if noise is None else noise.shape[0]
    if given != len(rows.noise_rows):
        raise ValueError(f"{given} rows of noise for {len(rows.noise_rows)} noisy rows: give one for each, in order")
    if noise is not None and len(some := rows.noise_rows):
        add_rows(x_next, some, _noise_std(model_output, channels, rows) * noise)
    return x_next, x0


def _noise_std(model_output: Array, channels: int, rows: RowCoefficients) -> Array:
    """Standard deviation of the noise of `rows.noise_rows`, [K, 1, 1, 1], or [K, C, H, W] where any is learned.

    Learned: exp of half of v max + (1 - v) min, the U-Net's v shifted from [-1, 1] to [0, 1] (Nichol and Dhariwal 2021,
    eq. 15).
    """
    xp = array_namespace(model_output)
    fixed = column(rows.std[rows.noise_rows], model_output)
    learned = np.flatnonzero(rows.learned_variance[rows.noise_rows])
    if not len(learned):
        return fixed
    if model_output.shape[1] != 2 * channels:
        raise ValueError(
            f"model output has {model_output.shape[1]} channels: learned variance needs {2 * channels} (eps, variance)"
        )
    some = rows.noise_rows[learned]
    fraction = take_rows(model_output[:, channels:], some) + 1
    fraction /= 2
    low = 1 - fraction
    low *= column(rows.min_log_variance[some], fraction)
    fraction *= column(rows.max_log_variance[some], fraction)
    fraction += low
    fraction *= 0.5
    std = xp.exp(fraction)
    everywhere = (len(rows.noise_rows), *std.shape[1:])
    return put_rows(xp.broadcast_to(fixed, everywhere), learned, std)


def sample(
    model: ModelFn, x_start: Array, plans: Sequence[StepPlan], noise_fn: NoiseFn, low_res: Array | None = None
) -> Array:
    """The reference loop: a batch from noise to images, every row by its own plan, one U-Net call per iteration.

    Rows with shorter plans leave early. The step scheduler does the same with rows that come and go.

    Args:
        model: `model(x, timesteps, rows, conditional)` -> [M, C or 2C, H, W], where row j of this call belongs to
            image `rows[j]` (int [M]) at `timesteps[j]` (float32 [M]), with that image's condition where
            `conditional[j]` (bool [M]), else with the null vectors.
        x_start: x_T, float32 [N, C, H, W] (draw 0 of the seed contract).
        plans: One plan per row.
        noise_fn: `noise_fn(row, draw)` -> [C, H, W], the noise that the row's step number `draw` (1 = noisiest) adds.
        low_res: As for `update`.

    Returns:
        The images, float32 [N, C, H, W].
    """
    xp = array_namespace(x_start)
    x, x0 = x_start, None
    for step in range(max(len(row_plan) for row_plan in plans)):
        active = np.flatnonzero([step < len(row_plan) for row_plan in plans])
        rows = gather([plans[row] for row in active], [step] * len(active))
        x_active = take_rows(x, active)
        outputs = model(
            xp.concat([x_active, take_rows(x_active, rows.guided_rows)]),
            np.concatenate([rows.timestep, rows.timestep[rows.guided_rows]]),
            np.concatenate([active, active[rows.guided_rows]]),
            np.arange(len(active) + len(rows.guided_rows)) < len(active),
        )
        noise = [noise_fn(int(row), step + 1) for row in active[rows.noise_rows]]
        x_next, x0_next = update(
            x_active,
            outputs[: len(active)],
            rows,
            unconditional=outputs[len(active) :] if len(rows.guided_rows) else None,
            x0_prev=None if x0 is None else take_rows(x0, active),
            noise=xp.stack(noise) if noise else None,
            low_res=None if low_res is None else take_rows(low_res, active),
        )
        x = put_rows(x, active, x_next)
        x0 = x0_next if x0 is None else put_rows(x0, active, x0_next)
    return x
