"""Inputs and outputs of the U-Nets: one table for all engines and for the exported graphs."""

from __future__ import annotations

import numpy as np
from array_api_compat import is_numpy_array
from numpy.typing import NDArray

from id3pm.config import UNetConfig
from id3pm.engines.arrays import Array
from id3pm.formats.array_api import array_namespace

FloatArray = NDArray[np.float32]
EngineInputs = dict[str, Array]
OUTPUT_NAME = "model_output"


def input_shapes(config: UNetConfig, rows: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the float32 inputs that a U-Net of this configuration takes, in graph order.

    `x` [N, 3, S, S] is x_t and `timesteps` [N] the training timesteps (rescaled where the diffusion says so);
    `identity` [N, D], `attributes` [N, A], `low_res` [N, 3, s, s] and `guidance` [N] (guidance scales) exist where the
    configuration has them.
    """
    shapes: dict[str, tuple[int, ...]] = {
        "x": (rows, 3, config.image_size, config.image_size),
        "timesteps": (rows,),
    }
    if config.identity_dim is not None:
        shapes["identity"] = (rows, config.identity_dim)
    if config.attribute_dim is not None:
        shapes["attributes"] = (rows, config.attribute_dim)
    if config.low_res_size is not None:
        shapes["low_res"] = (rows, 3, config.low_res_size, config.low_res_size)
    if config.guidance_range is not None:
        shapes["guidance"] = (rows,)
    return shapes


def output_shape(config: UNetConfig, rows: int) -> tuple[int, ...]:
    """Shape of `model_output`: eps or v, [N, 3, S, S], and the variance interpolation behind it where it is learned."""
    return (rows, config.out_channels, config.image_size, config.image_size)


def assert_inputs(config: UNetConfig, max_batch: int, inputs: EngineInputs) -> int:
    """The number of rows, after asserting that `inputs` are what the engine was built for.

    Requests are validated long before; a wrong input here is a bug of the calling code, not of a user.
    """
    rows: int = inputs["x"].shape[0]
    assert 1 <= rows <= max_batch, f"{rows} rows in one engine call; the engine takes 1 to {max_batch}"
    shapes = {name: tuple(array.shape) for name, array in inputs.items()}
    assert shapes == input_shapes(config, rows), f"engine inputs {shapes}, expected {input_shapes(config, rows)}"
    for name, array in inputs.items():
        assert array.dtype == array_namespace(array).float32, f"input {name}: need float32"
        assert not is_numpy_array(array) or array.flags.c_contiguous, f"input {name}: need contiguous memory"
    return rows
