"""Engines of a device that is not the CPU's; see `strict_arrays`."""

from __future__ import annotations

from typing import Any

import array_api_strict as xp
from fake_engine import POISON, FakeEngine
from strict_arrays import DEVICE, StrictArrays

from id3pm.engines.arrays import Array
from id3pm.engines.inputs import EngineInputs, assert_inputs


class StrictEngine(FakeEngine):
    """`FakeEngine` on that device."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.strict = self.arrays = StrictArrays()
        self.strict.fast_only = True

    def run(self, inputs: EngineInputs) -> Array:
        self.calls.append(assert_inputs(self.config, self.max_batch, inputs))
        self.entered.release()
        assert self._allowed is None or self._allowed.acquire(timeout=10.0)
        if self.error is not None:
            raise self.error
        assert all(array.device == DEVICE for array in inputs.values())
        mix = inputs["x"] * 0.5
        if "identity" in inputs:
            level = xp.sum(inputs["identity"], axis=1) * 0.01
            mix = mix + xp.reshape(level, (-1, 1, 1, 1))
        mix = mix + xp.reshape(inputs["timesteps"] * 0.001, (-1, 1, 1, 1))
        if "low_res" in inputs:
            factor = mix.shape[2] // inputs["low_res"].shape[2]
            mix = mix + xp.repeat(xp.repeat(inputs["low_res"], factor, axis=2), factor, axis=3)
        output = xp.concat([xp.tanh(mix), xp.sin(mix)], axis=1)
        if "identity" in inputs:
            bad = xp.reshape(inputs["identity"][:, 0] == POISON, (-1, 1, 1, 1))
            output = xp.where(bad, xp.full_like(output, xp.nan), output)
        return output


class HostEngine(StrictEngine):
    """The same arithmetic on numpy arrays: what the device's images are compared with."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        FakeEngine.__init__(self, *arguments, **more)
        self.strict = StrictArrays()
        self._device = StrictArrays()

    def run(self, inputs: EngineInputs) -> Array:
        output = super().run({name: self._device.from_host(array) for name, array in inputs.items()})
        return output._array
