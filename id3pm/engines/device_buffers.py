"""Inputs and output of an engine at fixed addresses of a device, as bound batches and recorded graphs need them."""

from __future__ import annotations

from id3pm.config import UNetConfig
from id3pm.engines.arrays import Array, DeviceArrays
from id3pm.engines.inputs import OUTPUT_NAME, EngineInputs, input_shapes, output_shape
from id3pm.formats.array_api import array_namespace


class DeviceBuffers:
    """Memory for calls of up to `max_batch` rows; all buckets share it, because one runs at a time.

    Rows that a call does not bring compute on old data, and their output is not read.

    Attributes:
        addresses: Address of every input and of the output, by name.
    """

    def __init__(self, arrays: DeviceArrays, config: UNetConfig, max_batch: int) -> None:
        """Allocates.

        Args:
            arrays: The device.
            config: The architecture.
            max_batch: Most rows of one call.
        """
        self._inputs = {name: arrays.zeros(shape) for name, shape in input_shapes(config, max_batch).items()}
        self._output = arrays.zeros(output_shape(config, max_batch))
        self.addresses = {
            name: arrays.address(array) for name, array in {**self._inputs, OUTPUT_NAME: self._output}.items()
        }

    def fill(self, inputs: EngineInputs) -> None:
        """Enqueues copies of a call's inputs, on the device."""
        for name, array in inputs.items():
            self._inputs[name][: array.shape[0], ...] = array

    def output(self, rows: int) -> Array:
        """Enqueues a copy of the first rows of the output: float32 [rows, 3 or 6, S, S], the caller's own."""
        return array_namespace(self._output).asarray(self._output[:rows, ...], copy=True)
