"""The house's import rules (docs/architecture.md), read from the source with `ast`."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOUNDATION = {"error_codes", "errors", "config", "installation", "command_options"}
PAPER = FOUNDATION | {"attributes", "formats", "samples"}
CORE = PAPER | {"unet", "diffusion", "face", "idspace", "engines", "sampling"}
LIBRARY = CORE | {"pipeline"}
FLOORS = ("evaluation", "export", "serving")  # packages whose folders are rooms of their own

# room -> the rooms of id3pm it may import (itself is always allowed)
ALLOWED = {
    "error_codes": set(),
    "errors": set(),
    "installation": set(),
    "command_options": set(),
    "config": {"errors"},
    "attributes": FOUNDATION,
    "samples": set(),
    "formats": FOUNDATION | {"attributes"},
    "unet": PAPER,
    "diffusion": PAPER,
    "face": PAPER,
    "idspace": PAPER | {"face"},
    "engines": PAPER | {"unet"},
    "sampling": PAPER | {"diffusion", "engines"},
    "pipeline": CORE,
    "training": CORE,
    "export": LIBRARY
    | {"serving", "serving/protocol", "export/unet", "export/tensorrt", "export/parity", "export/face"},
    "export/unet": CORE | {"export", "export/parity"},
    "export/tensorrt": CORE | {"export"},
    "export/parity": CORE,
    "export/face": CORE | {"export"},
    "evaluation": LIBRARY
    | {"evaluation/identity", "evaluation/super_resolution", "evaluation/verification", "evaluation/quality"}
    | {"evaluation/baselines", "evaluation/groups"},
    # The GAN of the embedded data set is what GAN search searches.
    "evaluation/baselines": LIBRARY
    | {"evaluation", "evaluation/identity", "evaluation/quality", "evaluation/verification", "evaluation/figures"}
    | {"training"},
    "evaluation/identity": LIBRARY | {"evaluation", "evaluation/verification", "evaluation/figures"},
    "evaluation/super_resolution": LIBRARY
    | {"evaluation", "evaluation/verification", "evaluation/quality", "evaluation/figures"},
    "evaluation/figures": LIBRARY | {"evaluation"},
    "evaluation/robustness": LIBRARY | {"evaluation", "evaluation/identity", "evaluation/verification"},
    "evaluation/groups": LIBRARY
    | {"evaluation", "evaluation/identity", "evaluation/figures", "evaluation/verification"},
    "evaluation/user_study": LIBRARY | {"evaluation", "evaluation/identity", "evaluation/figures"},
    "evaluation/quality": LIBRARY | {"evaluation", "evaluation/figures", "evaluation/verification"},
    "evaluation/verification": LIBRARY | {"evaluation", "evaluation/identity"},
    "synthetic": LIBRARY | {"evaluation"},
    "serving/protocol": CORE,
    "serving/models": CORE | {"serving/protocol"},
    "serving/model_repository": {"serving/models"},
    "serving/launcher": CORE | {"serving/protocol", "serving/models"},
    "serving/gateway": CORE | {"serving/protocol", "serving/models", "serving/launcher"},
    "serving": CORE | {"serving/protocol", "serving/models", "serving/launcher", "serving/gateway"},
    "page": PAPER | {"sampling", "serving", "serving/protocol", "serving/gateway"},
    "artifacts": CORE | {"export"},
    "cli": FOUNDATION,
    "__main__": {"cli"},
}
# foreign libraries that only these files or folders may name, even inside a function
HEAVY = {
    "torch": (
        "id3pm/unet",
        "id3pm/engines/torch_",
        "id3pm/training",
        "id3pm/evaluation",
        "id3pm/export",
        "tests",
        "benchmarks",  # the peers to compare with are PyTorch's
    ),  # fmt: skip
    "openvino": (
        "id3pm/engines/openvino_engine.py",
        "id3pm/face/landmarks.py",
        "id3pm/training/landmark_network.py",
        "id3pm/export",
        "tests",
        "benchmarks",
    ),
    "tensorrt": ("id3pm/engines/tensorrt_engine.py", "id3pm/export", "tests"),
    "tensorrt_rtx": ("id3pm/engines/tensorrt_engine.py", "id3pm/export", "tests"),
    "onnx": (
        *("id3pm/face", "id3pm/training/differentiable.py", "id3pm/export", "id3pm/evaluation/dlib_network.py"),
        *("tests", "benchmarks/load/stand_ins.py"),
    ),
    "triton_python_backend_utils": ("id3pm/serving", "benchmarks/load/baseline_model.py"),
    "tritonclient": ("client", "id3pm/serving/gateway", "tests", "benchmarks"),
    "grpc": ("client", "id3pm/serving/gateway", "id3pm/synthetic/ray_cluster.py", "tests", "benchmarks"),
    "aiohttp": ("id3pm/serving/gateway", "tests", "benchmarks"),
    "diffusers": ("tests", "benchmarks"),
    "gradio": tuple(f"id3pm/page/{name}.py" for name in ("app", "attributes", "panel", "picker")),
    "fsspec": ("id3pm/synthetic/store.py", "tests"),
    "ray": ("id3pm/synthetic/ray_cluster.py", "tests"),
    "sklearn": ("id3pm/idspace/fitting.py", "tests"),
}
CLIENT_MAY_IMPORT = {"numpy", "PIL", "tritonclient", "grpc", "id3pm_client"}
FOUNDATION_MAY_IMPORT = {
    "error_codes": set(),
    "errors": set(),
    "installation": set(),
    "command_options": {"_typeshed", "click"},
    "config": {"id3pm"},
    "attributes": {"id3pm", "numpy"},
    "formats": {"id3pm", "array_api_compat", "click", "numpy", "PIL", "safetensors"},
}


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@functools.cache
def imports(path: Path) -> list[str]:
    """Every module that a file imports, at any depth, as dotted names."""
    return list(imported(path))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where a name comes from"
            assert node.module is not None
            if node.module == "id3pm":
                yield from (f"id3pm.{alias.name}" for alias in node.names)
            else:
                yield node.module


def room_of(parts: tuple[str, ...]) -> str:
    """The room of a file or module below `id3pm`, by the parts of its path or name."""
    if parts[0] in FLOORS and (ROOT / "id3pm" / parts[0] / Path(*parts[1:2])).is_dir() and len(parts) > 1:
        return "/".join(parts[:2])
    return parts[0].removesuffix(".py")


def test_every_room_imports_only_the_rooms_below_it() -> None:
    for path in sources("id3pm"):
        room = room_of(path.relative_to(ROOT / "id3pm").parts)
        if room == "__init__":
            continue
        allowed = ALLOWED[room] | {room}
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "id3pm" and len(parts) > 1 and parts[1] != "__version__":
                assert room_of(tuple(parts[1:])) in allowed, f"{path}: {room} may not import {name}"
            foreign = (
                {"export"} if room in ("page", "synthetic") else {"id3pm_client", "export"}
            )  # these are clients like any other
            assert parts[0] not in foreign, f"{path}: {room} may not import {parts[0]}"


def test_heavy_libraries_stay_in_their_files() -> None:
    for path in sources("id3pm", "client", "benchmarks", "demo"):
        relative = path.relative_to(ROOT).as_posix()
        for name in imports(path):
            homes = HEAVY.get(name.split(".")[0])
            assert homes is None or relative.startswith(homes), f"{relative} may not import {name}"


@pytest.mark.parametrize("room", sorted(FOUNDATION_MAY_IMPORT))
def test_the_foundation_needs_little(room: str) -> None:
    folder = ROOT / "id3pm" / room
    files = folder.glob("*.py") if folder.is_dir() else [folder.with_suffix(".py")]
    found = {name.split(".")[0] for file in files for name in imports(file)}
    assert found - set(sys.stdlib_module_names) <= FOUNDATION_MAY_IMPORT[room]


def test_the_client_meets_the_server_on_the_wire_only() -> None:
    found = {name.split(".")[0] for path in sources("client/src") for name in imports(path)}
    assert found - set(sys.stdlib_module_names) <= CLIENT_MAY_IMPORT


@pytest.mark.parametrize("path", sources("id3pm/serving/model_repository"), ids=str)
def test_triton_models_are_thin(path: Path) -> None:
    found = {name for name in imports(path) if name.split(".")[0] not in sys.stdlib_module_names}
    assert all(name.startswith("id3pm.serving") or name == "triton_python_backend_utils" for name in found), found
    assert len(path.read_text().splitlines()) <= 60


def test_the_server_side_starts_without_torch() -> None:
    program = (
        "import sys; import id3pm; assert not {'numpy', 'torch'} & set(sys.modules), 'import id3pm is heavy';"
        "import id3pm.cli, id3pm.serving.command, id3pm.serving.protocol.wire, id3pm.pipeline, id3pm.face.stage;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, cwd=ROOT)
