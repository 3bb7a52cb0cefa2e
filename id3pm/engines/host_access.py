"""An engine whose arrays live on a device, for callers that have numpy arrays: the parity gate, measurements."""

from __future__ import annotations

import numpy as np

from id3pm.engines.arrays import HOST
from id3pm.engines.base import Engine
from id3pm.engines.inputs import EngineInputs, FloatArray


def on_host(engine: Engine) -> Engine:
    """The engine itself where it takes numpy arrays, else one that copies to its device and back, and waits."""
    return engine if engine.arrays is HOST else _HostAccess(engine)


class _HostAccess:
    """See `on_host`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.config = engine.config
        self.max_batch = engine.max_batch
        self.arrays = HOST
        self.description = engine.description

    def run(self, inputs: EngineInputs) -> FloatArray:
        """See `Engine.run`."""
        arrays = self._engine.arrays
        arrays.use()
        kept = {name: np.ascontiguousarray(array) for name, array in inputs.items()}  # until the result is there
        output = self._engine.run({name: arrays.from_host(array) for name, array in kept.items()})
        result: FloatArray = arrays.to_host(output)()
        return result

    def close(self) -> None:
        """See `Engine.close`."""
        self._engine.close()
