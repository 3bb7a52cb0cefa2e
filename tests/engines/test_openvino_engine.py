from __future__ import annotations

import ctypes
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tiny_engines
import torch

from id3pm.config import UNetConfig
from id3pm.engines import openvino_engine
from id3pm.engines.base import Engine, load_engine
from id3pm.engines.inputs import EngineInputs, input_shapes
from id3pm.engines.manifest import engine_sha256, read_manifest
from id3pm.engines.openvino_engine import why_no_bf16
from id3pm.errors import EngineError, MissingExtraError

needs_bf16 = pytest.mark.skipif(why_no_bf16() is not None, reason=str(why_no_bf16()))


def random_inputs(config: UNetConfig, rows: int) -> EngineInputs:
    rng = np.random.default_rng(1)
    inputs = {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in input_shapes(config, rows).items()}
    inputs["timesteps"] = np.linspace(999.0, 0.0, rows, dtype=np.float32)
    return inputs


def as_openvino(source: Path, folder: Path) -> Path:
    """A copy of an engine folder for this runtime."""
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tiny_engines.rewrite_manifest(folder, read_manifest(source), target="openvino-cpu", precision="bf16")
    return folder


@pytest.fixture
def folder(base_folder: Path, tmp_path: Path) -> Path:
    return as_openvino(base_folder, tmp_path / "openvino")


@pytest.fixture(params=["base", "sr"])
def engine(request: pytest.FixtureRequest, base_folder: Path, sr_folder: Path, tmp_path: Path) -> Engine:
    source = base_folder if request.param == "base" else sr_folder  # the second has external weights
    return load_engine(as_openvino(source, tmp_path / "openvino"), threads=1)


@needs_bf16
def test_output_is_the_torch_modules_but_for_rounding_at_every_time_step(engine: Engine) -> None:
    inputs = random_inputs(engine.config, 4)
    output = engine.run(inputs)
    with torch.inference_mode():
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        expected = tiny_engines.random_unet(engine.config)(**tensors).numpy()
    assert output.dtype == np.float32 and output.flags.c_contiguous
    errors = [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(output, expected, strict=True)]
    assert 1e-4 < max(errors) < 1.5e-2  # a timestep rounded to bf16 alone costs more than this


@needs_bf16
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_row_is_bit_identical_in_any_batch(folder: Path, threads: int) -> None:
    engine = load_engine(folder, threads=threads)
    inputs = random_inputs(engine.config, 4)
    singly = np.concatenate([engine.run({k: v[row : row + 1] for k, v in inputs.items()}) for row in range(4)])
    for rows in ([0, 1, 2, 3], [3, 1], [2, 0, 1], [1, 1, 1, 1]):
        together = engine.run({name: array[rows] for name, array in inputs.items()})
        np.testing.assert_array_equal(together, singly[rows])


@needs_bf16
def test_an_output_is_not_written_by_the_next_call(folder: Path) -> None:
    engine = load_engine(folder, threads=1)
    inputs = random_inputs(engine.config, 2)
    output = engine.run(inputs)
    kept = output.copy()
    engine.run({name: array[::-1].copy() for name, array in inputs.items()})
    np.testing.assert_array_equal(output, kept)


@needs_bf16
def test_engine_says_what_it_is(folder: Path) -> None:
    engine = load_engine(folder)
    assert engine.description.startswith("OpenVINO 20") and engine.description.endswith(" CPU bf16")
    assert engine.max_batch == 4
    assert engine.config == tiny_engines.BASE
    with pytest.raises(AssertionError):
        engine.run(random_inputs(engine.config, 5))


@needs_bf16
def test_file_that_is_no_graph_is_refused_without_its_path(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"not a graph")
    tiny_engines.rewrite_manifest(folder, read_manifest(folder), file_sha256=engine_sha256(folder / "model.onnx"))
    with pytest.raises(EngineError, match="cannot load this engine") as caught:
        load_engine(folder)
    assert str(folder) not in str(caught.value)


@needs_bf16
def test_graph_of_another_architecture_is_refused(folder: Path, sr_folder: Path) -> None:
    tiny_engines.rewrite_manifest(folder, read_manifest(folder), unet=read_manifest(sr_folder).unet)
    with pytest.raises(EngineError, match="the graph takes x, timesteps, identity, attributes"):
        load_engine(folder)


def test_missing_openvino_names_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[openvino\]"):
        load_engine(folder)


def test_a_processor_without_bf16_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = types.SimpleNamespace(get_property=lambda *_: ["FP32", "INT8"])
    monkeypatch.setattr(openvino_engine, "_core", lambda: old)
    with pytest.raises(EngineError, match="no bf16 instructions .* --precision fp32"):
        load_engine(folder)


def test_it_does_not_run_on_a_gpu(folder: Path) -> None:
    with pytest.raises(EngineError, match="built for openvino-cpu"):
        load_engine(folder, device="cuda")


@pytest.mark.parametrize(
    ("rows", "threads", "left"), [(5, 1, 5), (1, 2, 1), (2, 2, 0), (7, 2, 1), (3, 4, 0), (6, 4, 2), (7, 4, 0)]
)
def test_few_rows_that_are_left_get_all_threads(rows: int, threads: int, left: int) -> None:
    assert openvino_engine._left_over(rows, threads) == left


@needs_bf16
def test_signals_are_handled_on_the_main_threads_own_stack(folder: Path) -> None:
    class Stack(ctypes.Structure):  # stack_t of sigaltstack(2)
        _fields_ = (("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))

    load_engine(folder, threads=1).run(random_inputs(tiny_engines.BASE, 1))
    stack = Stack()
    assert ctypes.CDLL(None, use_errno=True).sigaltstack(None, ctypes.byref(stack)) == 0
    assert stack.flags == 2, "SS_DISABLE: no stack of their own"
