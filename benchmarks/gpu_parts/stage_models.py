"""The served stages without Triton: their models of the Python backend, given requests by hand.

All code of `id3pm.serving.models` runs as in a Triton stub: reading tensors, options, checks, the request registry, the
step scheduler, receipts, answers, metrics. What Triton itself adds is missing.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gpu_parts.both_stages import Engines, Job, OnImage, options_of
from gpu_parts.stages import Stage
from id3pm.engines.base import Engine
from id3pm.engines.manifest import BundleReference, Manifest, Parity, write_manifest
from id3pm.engines.torch_engine import UNetEngine
from id3pm.export.engine_folder import MODELS as STAGE_MODELS
from id3pm.serving.models.diffusion_stages import DenoiserModel, SuperResolutionModel
from id3pm.serving.models.stage_model import StageModel
from id3pm.serving.protocol.served_models import MODELS


class PythonBackend:
    """What the stages use of `triton_python_backend_utils`; answers go to the request, logs and metrics nowhere."""

    TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
    deserialize_bytes_tensor: Any = None

    class Logger:
        """Drops all."""

        log_info = log_warn = log_error = staticmethod(lambda message: None)

    class Tensor:
        """An array with a name."""

        def __init__(self, name: str, array: np.ndarray) -> None:
            self.name, self.as_numpy = (lambda: name), (lambda: array)

    class TritonError(RuntimeError):
        """An error for a caller."""

        INVALID_ARG, UNAVAILABLE, CANCELLED, INTERNAL = range(4)

    class InferenceResponse:
        """Outputs by name, or an error."""

        def __init__(self, tensors: Any = (), error: Exception | None = None) -> None:
            self.outputs = {tensor.name(): tensor.as_numpy() for tensor in tensors}
            self.error = error

    class MetricFamily:
        """Drops all values."""

        COUNTER, GAUGE, HISTOGRAM = range(3)

        def __init__(self, **_: object) -> None:
            pass

        def Metric(self, **_: object) -> Any:  # noqa: N802 - Triton's name
            """Its one metric."""
            return self

        increment = set = observe = staticmethod(lambda value: None)


class Request:
    """A request of the Python backend, and its response sender."""

    def __init__(
        self, tensors: Mapping[str, np.ndarray], wanted: list[str], on_response: Callable[[Any], None], name: str
    ) -> None:
        self.request_id = lambda: name
        self.parameters = lambda: "{}"
        self.timeout = lambda: 0
        self.inputs = lambda: [PythonBackend.Tensor(name, array) for name, array in tensors.items()]
        self.requested_output_names = lambda: wanted
        self.get_response_sender = lambda: self
        self.is_cancelled = lambda: False
        self.send: Callable[[Any, int], None] = lambda response, flags: on_response(response)


def manifest_of(stage: Stage, engine: UNetEngine, precision: str, **changes: Any) -> Manifest:
    """The manifest of a network with random weights, which proves nothing."""
    base = stage.config.low_res_size is None
    fields: dict[str, Any] = {
        "stage": "base" if base else "sr",
        "target": "torch-cuda",
        "precision": precision,
        "max_batch": engine.max_batch,
        "file": "model.safetensors",
        "file_sha256": "0" * 64,
        "bundle": BundleReference(name="random", weights_sha256="0" * 64, bundle_json_sha256="0" * 64),
        "unet": stage.config,
        "diffusion": stage.diffusion,
        "sampling": options_of(10)[0 if base else 1],
        "id_vector_model": "none",
        "attribute_set": None,
        "opset": None,
        "onnx": None,
        "versions": {"torch": str(torch.__version__)},
        "device": "cuda",
        "parity": Parity(forward=[], trajectory={}, thresholds={}),
        "built_at": "1970-01-01T00:00:00+00:00",
        "l2_normalised": False,
    }
    return Manifest(**{**fields, **changes})


class StageModels:
    """Both stages as the server has them, chained as the ensemble `id3pm` chains them; a `both_stages.System`."""

    def __init__(self, engines: Engines, precision: str) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._names = itertools.count()
        parts = (
            (engines.base, engines.base_engine, DenoiserModel),
            (engines.sr, engines.sr_engine, SuperResolutionModel),
        )
        self._base, self._sr = (self._model(stage, engine, precision, kind) for stage, engine, kind in parts)

    def _model(self, stage: Stage, engine: UNetEngine, precision: str, kind: type[StageModel]) -> StageModel:
        model = STAGE_MODELS[kind.stage]
        folder = Path(self._folder.name) / model
        (folder / "1" / "engine").mkdir(parents=True)
        write_manifest(folder / "1" / "engine", manifest_of(stage, engine, precision))
        settings = {name: {"string_value": str(value)} for name, value in MODELS[model].parameters.items()}
        given = {
            "model_repository": str(folder),
            "model_version": "1",
            "model_name": model,
            "model_instance_kind": "GPU",
            "model_instance_device_id": "0",
            "model_config": json.dumps({"parameters": settings}),
        }
        return type(kind.__name__, (_Loaded, kind), {"given_engine": _Kept(engine)})(PythonBackend(), given)

    def submit(self, job: Job, on_image: OnImage) -> None:
        """See `System`."""
        name = f"request-{next(self._names)}"
        shared = {"seed": np.array([[job.seed]]), "sr_steps": np.array([[job.steps]], np.int32)}
        base = {"embedding": job.vector[None], "steps": np.array([[job.steps]], np.int32), **shared}

        def enlarge(response: Any) -> None:
            if response.error is not None:
                on_image(response.error)
                return
            tensors = {**shared, **response.outputs}
            self._sr.accept(Request(tensors, ["image", "receipt"], finish, name))

        def finish(response: Any) -> None:
            on_image(response.outputs["image"][0] if response.error is None else response.error)

        self._base.accept(Request(base, ["image_64", "receipt_64"], enlarge, name))

    def close(self) -> None:
        """See `System`."""
        self._base.close()
        self._sr.close()
        self._folder.cleanup()


class _Loaded:
    """Gives a stage an engine that is loaded already."""

    given_engine: Engine

    def load(self, args: Mapping[str, str]) -> Engine:
        return self.given_engine


class _Kept:
    """An engine that others go on using when a stage closes it."""

    def __init__(self, engine: UNetEngine) -> None:
        self.config, self.max_batch, self.arrays = engine.config, engine.max_batch, engine.arrays
        self.description, self.run = engine.description, engine.run

    def close(self) -> None:
        pass
