"""Numbers about one stage in Triton's `/metrics`.

Triton's own compute statistics end when `execute` returns, which here is before the work begins; these are the true
ones.
"""

from __future__ import annotations

import time
from typing import Any

from id3pm.config import UNetConfig
from id3pm.engines.base import Engine
from id3pm.engines.inputs import EngineInputs
from id3pm.serving.wire import Array

_STEP_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_IMAGE_BUCKETS_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0)
_ERROR_CODES = ("INVALID_ARG", "UNAVAILABLE", "CANCELLED", "INTERNAL")


class StageMetrics:
    """Counters, gauges and histograms of one model.

    Args:
        pb: Triton's `triton_python_backend_utils`.
        model: The model's name, which becomes the label `model`.
    """

    def __init__(self, pb: Any, model: str) -> None:
        self._families: list[Any] = []  # Triton forgets a metric whose family is garbage-collected

        def metric(kind: str, name: str, description: str, buckets: tuple[float, ...] = (), **labels: str) -> Any:
            family = pb.MetricFamily(name=f"id3pm_{name}", description=description, kind=getattr(pb.MetricFamily, kind))
            self._families.append(family)
            options = {"buckets": list(buckets)} if buckets else {}
            return family.Metric(labels={"model": model, **labels}, **options)

        self.active_rows = metric("GAUGE", "active_rows", "Images that are being sampled")
        self.waiting_rows = metric("GAUGE", "waiting_rows", "Images that wait for their first step")
        self.images = metric("COUNTER", "images_total", "Images finished")
        self.steps = metric("COUNTER", "steps_total", "Sampling steps of finished images")
        self.engine_rows = metric("COUNTER", "engine_rows_total", "Rows evaluated; guided steps take two")
        self.step_seconds = metric("HISTOGRAM", "step_seconds", "Duration of one batched U-Net call", _STEP_BUCKETS_S)
        self.image_seconds = metric(
            "HISTOGRAM", "image_seconds", "From the arrival of a request to its last step", _IMAGE_BUCKETS_S
        )
        family = pb.MetricFamily(
            name="id3pm_errors_total", description="Requests answered with an error", kind=pb.MetricFamily.COUNTER
        )
        self._families.append(family)
        self._errors = {code: family.Metric(labels={"model": model, "code": code}) for code in _ERROR_CODES}

    def error(self, code: str) -> None:
        """Counts an error answer."""
        self._errors[code].increment(1)


class MeteredEngine:
    """An engine whose calls are measured."""

    def __init__(self, engine: Engine, metrics: StageMetrics) -> None:
        self._engine = engine
        self._metrics = metrics
        self.config: UNetConfig = engine.config
        self.max_batch: int = engine.max_batch
        self.description: str = engine.description

    def run(self, inputs: EngineInputs) -> Array:
        """As the engine itself; counts rows and seconds."""
        start = time.perf_counter()
        output = self._engine.run(inputs)
        self._metrics.step_seconds.observe(time.perf_counter() - start)
        self._metrics.engine_rows.increment(len(output))
        return output

    def close(self) -> None:
        """Closes the engine."""
        self._engine.close()
