"""Calibration data for int8: inputs of the fp32 network along real sampling loops.

A quantised network never sees noised photographs, it sees what its own sampler leaves: so the rows are recorded while
the fp32 PyTorch network samples, conditional and unconditional ones. The ID vectors are those of faces that the
bundle's own network makes, where the repository has the face engine of the bundle's ID vectors, else random unit
vectors. Everything comes from seeds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from id3pm.config import UNetConfig
from id3pm.engines.arrays import Arrays
from id3pm.engines.base import Engine
from id3pm.engines.inputs import EngineInputs, FloatArray
from id3pm.engines.torch_engine import TorchEngine
from id3pm.errors import FaceError
from id3pm.export.engine_folder import ConversionJob
from id3pm.export.parity.identity import face_stage
from id3pm.export.parity.inputs import Row, conditions_of, dead_leaves
from id3pm.export.parity.trajectory import options, sample_images
from id3pm.formats.bundle import Bundle, read_bundle
from id3pm.formats.images import to_uint8

FIRST_SEED = 1000  # the gate's images have the seeds from 0: it must not test on what was calibrated
LARGE = 50_000_000
"""Parameters above which fewer rows must do: each costs seconds on two cores, and has as many values to bound."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """How much is recorded: every step of every image, with and without the condition."""

    images: int
    steps: int
    batch: int


def size_of(parameters: int) -> Size:
    """The published rule: 4 images of 20 steps, 1 image of 10 steps for networks of more than `LARGE` parameters."""
    return Size(images=1, steps=10, batch=2) if parameters > LARGE else Size(images=4, steps=20, batch=4)


class Recorder:
    """An `Engine` that keeps the inputs of all calls of another."""

    def __init__(self, engine: Engine) -> None:
        self.config: UNetConfig = engine.config
        self.max_batch: int = engine.max_batch
        self.arrays: Arrays = engine.arrays
        self.description: str = engine.description
        self.calls: list[EngineInputs] = []
        self._engine = engine

    def run(self, inputs: EngineInputs) -> FloatArray:
        """See `Engine.run`."""
        self.calls.append(inputs)
        output: FloatArray = self._engine.run(inputs)
        return output

    def close(self) -> None:
        """Leaves the other engine open."""


class Rows:
    """Recorded inputs as `onnxruntime.quantization` reads them: `get_next` until `None`."""

    def __init__(self, calls: list[EngineInputs]) -> None:
        self._calls: Iterator[EngineInputs] = iter(calls)

    def get_next(self) -> EngineInputs | None:
        """The inputs of the next call."""
        return next(self._calls, None)


def record(job: ConversionJob) -> tuple[list[EngineInputs], str]:
    """The inputs of all calls along the trajectories, and where the ID vectors come from, in words."""
    bundle = read_bundle(job.bundle)
    engine = TorchEngine(job.bundle, job.spec.stage, max_batch=1)
    size = size_of(engine.parameters)
    engine.max_batch = size.batch
    recorder = Recorder(engine)
    if job.spec.stage == "base":
        conditions, source = _conditions(job, bundle, engine, size)
        low_res = None
        diffusion = bundle.base_diffusion
    else:
        conditions, source = [({}, {})] * size.images, "none"
        low_res = _low_res(engine.config, size.images)
        diffusion = bundle.sr_diffusion
    how = options(engine.config, diffusion, size.steps)
    sample_images(recorder, diffusion, how, conditions, low_res)
    engine.close()
    return recorder.calls, source


def _conditions(job: ConversionJob, bundle: Bundle, engine: Engine, size: Size) -> tuple[list[tuple[Row, Row]], str]:
    """Condition and null vectors of every image."""
    pairs = [conditions_of(engine.config, FIRST_SEED + image) for image in range(size.images)]
    conditions = [(pair[0][1], pair[-1][1]) for pair in pairs]
    faces = face_stage(job.repository, bundle.id_vector_model)
    if faces is None or engine.config.identity_dim is None:
        return conditions, "random unit vectors: the repository has no face engine of these ID vectors"
    how = options(engine.config, bundle.base_diffusion, 10)
    images = to_uint8(sample_images(engine, bundle.base_diffusion, how, conditions, None))
    found = 0
    for (given, _), face in zip(conditions, faces.embed_images(images), strict=True):
        if not isinstance(face, FaceError):
            given["identity"] = face.embedding
            found += 1
    return conditions, f"{found} of {size.images} from faces that the network made, the others random unit vectors"


def _low_res(config: UNetConfig, images: int) -> NDArray[np.float32]:
    assert config.low_res_size is not None
    return np.stack([dead_leaves(FIRST_SEED + image, config.low_res_size) for image in range(images)])
