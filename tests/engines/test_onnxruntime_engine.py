from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_engines
import torch

from id3pm.config import UNetConfig
from id3pm.engines.base import Engine, load_engine
from id3pm.engines.inputs import EngineInputs, input_shapes
from id3pm.engines.manifest import engine_sha256, read_manifest
from id3pm.errors import EngineError, EngineMissingError


def random_inputs(config: UNetConfig, rows: int) -> EngineInputs:
    rng = np.random.default_rng(1)
    inputs = {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in input_shapes(config, rows).items()}
    inputs["timesteps"] = rng.integers(0, 100, rows).astype(np.float32)
    return inputs


@pytest.fixture(params=["base", "sr"])
def engine(request: pytest.FixtureRequest, base_folder: Path, sr_folder: Path) -> Engine:
    return load_engine(base_folder if request.param == "base" else sr_folder, threads=1)


def test_output_equals_the_torch_module(engine: Engine) -> None:
    inputs = random_inputs(engine.config, 3)
    output = engine.run(inputs)
    with torch.inference_mode():
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        expected = tiny_engines.random_unet(engine.config)(**tensors).numpy()
    assert output.dtype == np.float32 and output.flags.c_contiguous
    assert np.abs(output - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("threads", [1, 2])
def test_row_is_bit_identical_in_any_batch(base_folder: Path, threads: int) -> None:
    engine = load_engine(base_folder, threads=threads)
    inputs = random_inputs(engine.config, 4)
    singly = np.concatenate([engine.run({k: v[row : row + 1] for k, v in inputs.items()}) for row in range(4)])
    for rows in ([0, 1, 2, 3], [3, 1], [2, 0, 1]):
        together = engine.run({name: array[rows] for name, array in inputs.items()})
        np.testing.assert_array_equal(together, singly[rows])


def test_engine_says_what_it_is(base_folder: Path) -> None:
    engine = load_engine(base_folder)
    assert engine.description.startswith("onnxruntime ") and engine.description.endswith(" CPU fp32")
    assert engine.max_batch == 4
    assert engine.config == tiny_engines.BASE


def test_wrong_inputs_are_a_bug_of_the_caller(base_folder: Path) -> None:
    engine = load_engine(base_folder)
    good = random_inputs(engine.config, 2)
    for bad in (
        random_inputs(engine.config, 5),
        {name: array for name, array in good.items() if name != "identity"},
        {**good, "x": good["x"].astype(np.float64)},
        {**good, "timesteps": good["timesteps"][:1]},
    ):
        with pytest.raises(AssertionError):
            engine.run(bad)


def test_external_weights_must_be_intact(sr_folder: Path, tmp_path: Path) -> None:
    for file in sr_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.onnx.data"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(EngineError, match="damaged"):
        load_engine(tmp_path)


def test_file_that_is_no_graph_is_refused_without_its_path(engine_copy: Path) -> None:
    (engine_copy / "model.onnx").write_bytes(b"not a graph")
    manifest = read_manifest(engine_copy)
    tiny_engines.rewrite_manifest(engine_copy, manifest, file_sha256=engine_sha256(engine_copy / "model.onnx"))
    with pytest.raises(EngineError, match="cannot load this engine") as caught:
        load_engine(engine_copy)
    assert str(engine_copy) not in str(caught.value)


def test_graph_of_another_architecture_is_refused(engine_copy: Path, sr_folder: Path) -> None:
    manifest = read_manifest(engine_copy)
    tiny_engines.rewrite_manifest(engine_copy, manifest, unet=read_manifest(sr_folder).unet)
    with pytest.raises(EngineError, match="the graph takes x, timesteps, identity, attributes"):
        load_engine(engine_copy)


def test_empty_folder_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(EngineMissingError, match="id3pm build"):
        load_engine(tmp_path)


@pytest.mark.parametrize(
    ("target", "device", "message"),
    [
        ("onnx-cpu", "cuda", "built for onnx-cpu"),
        ("onnx-cuda", "cpu", "--target cpu"),
        ("tensorrt", "cpu", "built for tensorrt"),
        ("onnx-cpu", "gpu", "use cpu, cuda or cuda:<index>"),
        ("onnx-cpu", "cuda:-1", "use cpu, cuda or cuda:<index>"),
    ],
)
def test_device_that_does_not_suit_the_target_is_refused(
    engine_copy: Path, target: str, device: str, message: str
) -> None:
    tiny_engines.rewrite_manifest(engine_copy, read_manifest(engine_copy), target=target)
    with pytest.raises(EngineError, match=message):
        load_engine(engine_copy, device=device)
