from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_engines
import torch
from eager_compiler import EagerCompiler
from tiny_bundle import write_tiny_bundle

from id3pm.engines import torch_arrays
from id3pm.engines.inputs import input_shapes
from id3pm.engines.torch_arrays import TorchArrays
from id3pm.engines.torch_engine import TorchEngine, TorchPrecision, UNetEngine
from id3pm.errors import BundleError, EngineError, MissingExtraError
from id3pm.export.parity.thresholds import thresholds
from id3pm.formats.bundle import Stage

SMALLEST = dataclasses.replace(tiny_engines.SR, channel_mult=(1,), image_size=8, low_res_size=4)


@pytest.fixture(scope="module")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    write_tiny_bundle(folder)
    return folder


@pytest.mark.parametrize("stage", ["base", "sr"])
def test_engine_of_a_bundle_equals_its_module(bundle_folder: Path, stage: Stage) -> None:
    engine = TorchEngine(bundle_folder, stage)
    rng = np.random.default_rng(0)
    inputs = {name: rng.standard_normal(s, dtype=np.float32) for name, s in input_shapes(engine.config, 2).items()}
    output = engine.run(inputs)
    with torch.inference_mode():
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        expected = tiny_engines.random_unet(engine.config)(**tensors).numpy()
    np.testing.assert_array_equal(output, expected)
    assert output.dtype == np.float32
    assert engine.description == f"torch {torch.__version__} cpu fp32"


def test_folder_without_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        TorchEngine(tmp_path, "base")


def test_missing_torch_names_the_extra(bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match="export"):
        TorchEngine(bundle_folder, "base")


def test_network_runs_at_another_size(bundle_folder: Path) -> None:
    engine = TorchEngine(bundle_folder, "sr", image_size=16)
    inputs = {name: np.zeros(shape, np.float32) for name, shape in input_shapes(engine.config, 2).items()}
    assert inputs["low_res"].shape == (2, 3, 8, 8)
    assert engine.run(inputs).shape == (2, engine.config.out_channels, 16, 16)


@pytest.mark.parametrize(("precision", "error"), [("fp16", 2e-2), ("bf16", 2e-1)])
def test_half_precision_keeps_embeddings_norms_and_the_last_layer(
    bundle_folder: Path, precision: TorchPrecision, error: float
) -> None:
    exact, engine = TorchEngine(bundle_folder, "base"), TorchEngine(bundle_folder, "base", precision=precision)
    rng = np.random.default_rng(0)
    inputs = {name: rng.standard_normal(s, dtype=np.float32) for name, s in input_shapes(engine.config, 2).items()}
    expected, output = exact.run(inputs), engine.run(inputs)
    assert output.dtype == np.float32
    assert 0 < np.abs(output - expected).max() / np.abs(expected).max() < error
    kinds = {(type(m).__name__, p.dtype) for m in engine._unet.modules() for p in m.parameters(recurse=False)}
    half = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    assert ("Conv2d", half) in kinds
    assert {dtype for name, dtype in kinds if not name.startswith("Conv")} == {torch.float32}
    assert engine._unet.out[-1].weight.dtype == torch.float32


def test_copies_of_torch_arrays_on_the_cpu_are_what_was_given() -> None:
    arrays = TorchArrays("cpu")
    memory = arrays.host((2, 3))
    memory[...] = 7.0
    tensor = arrays.from_host(memory)
    np.testing.assert_array_equal(arrays.to_host(tensor * 2)(), np.full((2, 3), 14.0))
    assert arrays.ahead == 0, "calls on the CPU wait for their result"


def test_kernels_of_a_gpu_compute_fp32_in_fp32_and_repeat_their_bits(
    bundle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cuDNN takes TF32 for fp32 convolutions if nothing is said."""
    engine, seen = TorchEngine(bundle_folder, "sr"), []
    network = engine._network

    def looking(**tensors: torch.Tensor) -> torch.Tensor:
        seen.append((torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic))
        return network(**tensors)

    monkeypatch.setattr(engine, "_network", looking)
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic
    engine.run({name: np.zeros(shape, np.float32) for name, shape in input_shapes(engine.config, 1).items()})
    assert seen == [(False, True)]
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic) == before


def test_a_compiled_network_is_one_graph_for_each_bucket_and_computes_the_same(eager_compiler: EagerCompiler) -> None:
    """For more buckets than PyTorch compiles by itself, which are 8."""
    config = SMALLEST
    sizes, rng = range(1, 10), np.random.default_rng(0)
    plain, compiled = (
        UNetEngine(tiny_engines.random_unet(config), 9, buckets=sizes, compiled=kind) for kind in (False, True)
    )
    assert compiled.description == plain.description + " compiled"
    for rows in sizes:
        given = {n: rng.standard_normal(s, dtype=np.float32) for n, s in input_shapes(config, rows).items()}
        np.testing.assert_array_equal(compiled.run(given), plain.run(given))
    (call,) = eager_compiler.calls
    assert call.options == {"deterministic": True, "triton.cudagraphs": False}
    assert call.graphs == len(sizes), "compiled, not run by Python"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler, which inductor needs for CPUs")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of its own imports
def test_kernels_of_inductor_keep_the_limit_of_the_gate_and_repeat_their_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    rng = np.random.default_rng(0)
    given = {n: rng.standard_normal(s, dtype=np.float32) for n, s in input_shapes(SMALLEST, 2).items()}
    plain, compiled = (UNetEngine(tiny_engines.random_unet(SMALLEST), 2, compiled=kind) for kind in (False, True))
    expected, output = plain.run(given), compiled.run(given)
    error = np.linalg.norm(output - expected) / np.linalg.norm(expected)
    assert 0 < error < thresholds("torch-cuda", "fp32").relative_error, "other kernels, the same numbers"
    np.testing.assert_array_equal(compiled.run(given), output)


def test_a_compiler_that_would_not_repeat_its_bits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", "2.9.1+cu130")
    with pytest.raises(EngineError, match=r"from 2\.10 on, this is 2\.9; install a newer one, or build without"):
        UNetEngine(tiny_engines.random_unet(tiny_engines.BASE), 2, compiled=True)


@pytest.mark.parametrize(("name", "index"), [("cuda", 0), ("cuda:1", 1)])
def test_a_gpu_without_a_number_is_the_first(name: str, index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch.cuda.set_device` refuses a device without a number."""
    used: list[torch.device] = []
    monkeypatch.setattr(torch_arrays, "_stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "set_device", used.append)
    TorchArrays(name).use()
    assert used == [torch.device("cuda", index)]


class Cuda:
    """The calls of `torch.cuda` that a copy to the host makes, in their order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.current = "compute"
        empty = torch.empty
        monkeypatch.setattr(torch, "empty", lambda shape, dtype, pin_memory: empty(shape, dtype=dtype))
        monkeypatch.setattr(torch_arrays, "_stream", lambda device: self)
        monkeypatch.setattr(torch_arrays, "_event", lambda: self)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: self.current)
        monkeypatch.setattr(torch.cuda, "stream", lambda stream: self)

    def __enter__(self) -> None:
        self.current = "copies"

    def __exit__(self, *_: object) -> None:
        self.current = "compute"

    def wait_stream(self, stream: str) -> None:
        self.log.append(f"wait for {stream}")

    def record(self, stream: Cuda) -> None:
        self.log.append(f"event after {self.current}")

    def synchronize(self) -> None:
        self.log.append("read")

    def array(self) -> torch.Tensor:
        log, cuda = self.log, self

        class Logged(torch.Tensor):
            @classmethod
            def __torch_function__(cls, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
                if func is torch.Tensor.copy_:
                    log.append(f"copy on {cuda.current}")
                with torch._C.DisableTorchFunctionSubclass():
                    return func(*args, **(kwargs or {}))

            def record_stream(self, stream: Cuda) -> None:  # type: ignore[override]
                log.append("keep for copies")

        return torch.full((2,), 7.0).as_subclass(Logged)


def test_copies_to_the_host_are_on_a_stream_of_their_own_behind_what_is_enqueued(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = Cuda(monkeypatch)
    arrays = TorchArrays("cuda")
    read = arrays.to_host(cuda.array())
    assert cuda.log == ["wait for compute", "copy on copies", "keep for copies", "event after copies"]
    assert (read() == 7.0).all() and cuda.log[-1] == "read"
    cuda.log.clear()
    with arrays.reading():
        arrays.to_host(cuda.array())
    assert "wait for compute" not in cuda.log, "read beside the step under way"


def test_an_own_stream_is_the_one_of_every_thread_that_uses_the_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    used: list[str] = []
    monkeypatch.setattr(torch_arrays, "_stream", lambda device: made.append(f"stream {len(made)}") or made[-1])
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "set_stream", used.append)
    TorchArrays("cuda").use()
    assert used == []
    TorchArrays("cuda", own_stream=True).use()
    assert len(used) == 1 and used[0] in made
