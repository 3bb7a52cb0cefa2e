"""The script for a GPU machine where there is nothing but PyTorch, numpy and onnx: the same numbers, and no failure."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from made_once import made_once

import gpu
from gpu_parts import fallbacks
from gpu_parts.wheels import fits
from id3pm.formats.weights import read_weights

THERE = (
    *("torch", "torchgen", "functorch", "numpy", "numpy.libs", "onnx", "onnxruntime", "setuptools", "_distutils_hack"),
    *("google", "flatbuffers", "ml_dtypes", "packaging", "sympy", "mpmath", "networkx", "jinja2", "markupsafe"),
    *("filelock", "fsspec", "typing_extensions.py"),
)
"""PyTorch, numpy, onnx and onnxruntime with what they need."""
BENCHMARKS = Path(gpu.__file__).parent
TRAIN = """
import dataclasses, hashlib, pathlib, sys
import torch
from gpu_parts.report import Report
from gpu_parts.training import Way, trainer_of
from id3pm.training.presets import PAPER_BASE
from networks import TINY_16

torch.set_num_threads(1)
report = Report(pathlib.Path({folder!r}) / "none.json", "cpu", 0.0)
for precision in ("no", "bf16"):
    small = {{"unet": TINY_16, "train_size": 16, "batch_size": 4, "accumulation": 2, "grad_clip": 0.1}}
    config = dataclasses.replace(PAPER_BASE, precision=precision, **small)
    with trainer_of(report, config, Way("", {{}})) as (trainer, _):
        losses = [trainer.train_step()["loss"] for _ in range(3)]
        content = b"".join(weight.detach().numpy().tobytes() for weight in trainer.unet.parameters())
        print(losses, hashlib.sha256(content).hexdigest())
"""
WRITE = """
import numpy, torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_tensors
rng = numpy.random.default_rng(0)
arrays = {{"a": rng.random((3, 4), numpy.float32), "b": numpy.ones(5, numpy.float16)}}
save_file(arrays, {folder!r} + "/n", {{"k": "v"}})
save_tensors({{"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3, dtype=torch.bfloat16)}}, {folder!r} + "/t")
import PIL.Image
assert PIL.Image.Transpose.ROTATE_90 is not None
try:
    PIL.Image.open("x")
except ImportError as error:
    print(error)
"""


def make_bare(folder: Path) -> None:
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    here = Path(torch.__file__).parents[1]
    for name in THERE:
        if (here / name).exists():
            (site / name).symlink_to(here / name)
    for name in ("torch", "numpy", "onnx", "onnxruntime"):
        files = importlib.metadata.distribution(name).files or []
        metadata = next(Path(str(file.locate())).parent for file in files if file.name == "METADATA")
        (site / metadata.name).symlink_to(metadata)


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Python that has not got the packages for which there are stand-ins."""
    folder = made_once(tmp_path_factory, "bare-python", make_bare)
    return str(folder / "bin" / "python")


def output(python: str, code: str) -> list[str]:
    path = os.pathsep.join([*gpu.FOLDERS])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    code = "from gpu_parts import fallbacks\nfallbacks.install()\n" + code
    done = subprocess.run(
        [python, "-c", code], env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_what_is_installed_is_never_replaced_and_what_is_not_is_named(bare_python: str) -> None:
    assert fallbacks.missing() == []
    assert output(bare_python, "print(*fallbacks.missing())") == [" ".join(fallbacks.REPLACED + ("PIL",))]


@pytest.mark.parametrize("name", ["parity", "load"])
def test_parts_run_with_the_stand_ins_alone(
    name: str, bare_python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", bare_python)
    result = gpu.run_part(name, "cpu", 240.0, tmp_path)
    assert "failed" not in result, (tmp_path / f"{name}.log").read_text()
    assert result["tables"]
    if name == "parity":
        assert all(float(line["forward_error"]) < 1e-5 for line in result["tables"][0])


def test_training_without_accelerate_gives_the_bits_of_training_with_it(bare_python: str, tmp_path: Path) -> None:
    code = TRAIN.format(folder=str(tmp_path))
    try:
        assert output(bare_python, code) == output(sys.executable, code)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def test_weights_are_written_as_safetensors_writes_them(bare_python: str, tmp_path: Path) -> None:
    from safetensors import safe_open

    (told,) = output(bare_python, WRITE.format(folder=str(tmp_path)))
    assert told == "PIL.Image.open: PIL is not installed"
    with safe_open(tmp_path / "n", framework="np") as opened:
        assert opened.metadata() == {"k": "v"}
        np.testing.assert_array_equal(opened.get_tensor("a"), np.random.default_rng(0).random((3, 4), np.float32))
    read = read_weights(tmp_path / "t")
    np.testing.assert_array_equal(read["a"], np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(read["b"], np.ones(3))


@pytest.fixture(scope="module")
def stand_in() -> ModuleType:
    spec = importlib.util.spec_from_file_location("stand_in", fallbacks.PACKAGES / "array_api_compat.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_functions_of_arrays_give_the_bits_of_the_package(library: str, stand_in: ModuleType) -> None:
    import array_api_compat

    host = np.random.default_rng(0).standard_normal((3, 4, 5), dtype=np.float32)
    host[0, 0, 0] = np.nan
    x = host if library == "numpy" else torch.from_numpy(host)
    ours, theirs = stand_in.array_namespace(x), array_api_compat.array_namespace(x)
    index = ours.asarray(np.array([2, 0]))
    calls = {
        "maximum": lambda xp: xp.maximum(x, 0.5 if library == "torch" else np.float32(0.5)),
        "minimum": lambda xp: xp.minimum(x, x * 2),
        "concat": lambda xp: xp.concat([x, x]),
        "stack": lambda xp: xp.stack([x, x]),
        "take": lambda xp: xp.take(x, index, axis=0),
        "mean": lambda xp: xp.mean(x, axis=(1, 2)),
        "all": lambda xp: xp.all(xp.isfinite(x), axis=1),
        "sort": lambda xp: xp.sort(x, axis=-1, stable=False),
        "astype": lambda xp: xp.astype(xp.isnan(x), xp.uint8),
        "moveaxis": lambda xp: xp.moveaxis(x, 0, -1),
        "ones": lambda xp: xp.ones((2, 3), dtype=x.dtype, device=array_api_compat.device(x)),
        "arange": lambda xp: xp.arange(4, dtype=xp.int64, device=array_api_compat.device(x)),
        "where": lambda xp: xp.where(xp.isnan(x), xp.zeros_like(x), xp.exp(xp.abs(x))),
        "reshape": lambda xp: xp.reshape(x, (-1, 5)),
        "broadcast_to": lambda xp: xp.broadcast_to(x[:, :1, ...], (3, 4, 5)),
        "asarray": lambda xp: xp.asarray(x, copy=True),
    }
    if library == "numpy":
        calls["clip"] = lambda xp: xp.clip(x, min=-0.5, max=0.5)
    for name, call in calls.items():
        made, expected = call(ours), call(theirs)
        assert made.dtype == expected.dtype, name
        np.testing.assert_array_equal(np.asarray(made), np.asarray(expected), err_msg=name)
    assert stand_in.device(x) == array_api_compat.device(x)
    assert stand_in.is_numpy_array(x) == array_api_compat.is_numpy_array(x)
    with pytest.raises(TypeError):
        stand_in.array_namespace([1.0])


@pytest.mark.parametrize(
    ("wheel", "fitting"),
    [
        ("click-8.1.7-py3-none-any.whl", True),
        ("six-1.16.0-py2.py3-none-any.whl", True),
        ("pillow-11.0.0-cp312-cp312-manylinux_2_28_x86_64.whl", True),
        ("pillow-11.0.0-cp311-cp311-manylinux_2_28_x86_64.whl", False),
        ("pillow-11.0.0-cp312-cp312-macosx_11_0_arm64.whl", False),
        ("pillow-11.0.0-cp312-cp312-manylinux_2_28_aarch64.whl", False),
        ("safetensors-0.5.0-cp38-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", True),
        ("later-1.0-cp313-abi3-manylinux_2_17_x86_64.whl", False),
    ],
)
def test_wheels_fit_or_are_left_out(wheel: str, fitting: bool) -> None:
    assert fits(wheel, (3, 12), "x86_64") == fitting


def test_wheels_are_used_in_place_of_stand_ins(bare_python: str, tmp_path: Path) -> None:
    wheels, out = tmp_path / "wheels", tmp_path / "out"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "array_api_compat-9.9-py3-none-any.whl", "w") as archive:
        archive.writestr("array_api_compat/__init__.py", "brought = True")
    (wheels / "pillow-1-cp25-cp25-manylinux_2_28_x86_64.whl").write_bytes(b"for another Python")
    code = f"import gpu, pathlib\nprint(*gpu.use_wheels(pathlib.Path({str(wheels)!r}), pathlib.Path({str(out)!r})))\n"
    code += "print('array_api_compat' in gpu.missing())\nimport array_api_compat\nprint(array_api_compat.brought)"
    assert output(bare_python, code) == ["pillow-1-cp25-cp25-manylinux_2_28_x86_64.whl", "False", "True"]
