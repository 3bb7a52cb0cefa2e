"""The two wheels in an environment of their own, away from the checkout: build, serve, generate, page, evaluate."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_engines
from PIL import Image

from id3pm.formats.bundle import write_bundle
from tests.tiny_bundle import arrays, write_tiny_bundle

pytestmark = [pytest.mark.server, pytest.mark.timeout(1200)]
ROOT = Path(__file__).parents[2]
PATIENCE_S = 500.0  # other jobs may have the processor
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outside the checkout; all commands run here."""
    return tmp_path_factory.mktemp("wheel")


@pytest.fixture(scope="module")
def environment(folder: Path) -> Path:
    """A virtual environment with the wheels, which sees the libraries of this one but not its checkout."""
    sources, wheels, made = folder / "sources", folder / "wheels", folder / "environment"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    for name in ("pyproject.toml", "README.md"):
        sources.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, sources)
    shutil.copytree(ROOT / "id3pm", sources / "id3pm", ignore=ignored)
    shutil.copytree(ROOT / "client", sources / "client", ignore=ignored)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels)]
    subprocess.run([*build, str(sources), str(sources / "client")], check=True, timeout=PATIENCE_S)
    shutil.rmtree(sources)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(made)], check=True, timeout=PATIENCE_S)
    own = next((made / "lib").glob("python*/site-packages"))
    # A folder on the path by a .pth file: .pth files in it, as those of editable installs, are not read.
    (own / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [*pip, "--python", str(made / "bin/python"), "install", "--no-deps", "--no-index"]
    subprocess.run([*install, *map(str, wheels.glob("*.whl"))], check=True, timeout=PATIENCE_S)
    return made


@pytest.fixture(scope="module")
def variables(folder: Path) -> dict[str, str]:
    return {**{name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, "TMPDIR": str(folder)}


@pytest.fixture(scope="module")
def run(folder: Path, environment: Path, variables: dict[str, str]) -> Run:
    """Runs a program of the environment."""

    def run(program: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = [str(environment / "bin" / program), *words]
        return subprocess.run(
            command, cwd=folder, env=variables, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )

    return run


@pytest.fixture(scope="module")
def built(folder: Path, run: Run) -> Path:
    """A new model repository with engines of a tiny bundle."""
    bundle = write_tiny_bundle(folder / "tiny")
    small = {"channel_mult": (1,), "attention_resolutions": ()}  # what takes long to export grows with the layers
    base = dataclasses.replace(bundle.base, identity_dim=128, **small)  # SFace's
    bundle = dataclasses.replace(bundle, identity_dim=128, base=base, sr=dataclasses.replace(bundle.sr, **small))
    unets = map(tiny_engines.random_unet, (bundle.base, bundle.sr))
    write_bundle(folder / "bundle", bundle, *map(arrays, unets))
    done = run("id3pm", "build", "--bundle", "bundle", "--repository", "models", "--max-batch", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("installed") == 2
    return folder / "models"


@pytest.fixture
def service(built: Path, environment: Path, variables: dict[str, str], folder: Path) -> Iterator[str]:
    """`id3pm serve`; the address of its HTTP port."""
    ports = [word for name in ("http", "grpc", "metrics") for word in (f"--{name}-port", "0")]
    program = [str(environment / "bin/id3pm"), "serve", "--repository", str(built), "--threads", "1", *ports]
    process = subprocess.Popen(program, cwd=folder, env=variables, stderr=subprocess.PIPE, text=True)
    impatience = threading.Timer(PATIENCE_S, process.kill)
    impatience.start()
    try:
        said = ""
        for line in process.stderr or ():
            said += line
            if found := re.search(r"serves on http://(127\.0\.0\.1:\d+)", line):
                break
        else:
            pytest.fail(said)
        yield found[1]
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)
        impatience.cancel()


def test_the_checkout_is_out_of_sight(run: Run, environment: Path) -> None:
    program = "import id3pm, id3pm_client, id3pm.installation as i; print(id3pm.__file__, id3pm_client.__file__);"
    done = run("python", "-c", program + "print(i.checkout()); print(i.how_to_install('web'))")
    first, where, how = done.stdout.splitlines()
    assert all(Path(file).is_relative_to(environment) for file in first.split()), done.stderr
    assert where == "None"
    assert how.startswith("pip install 'id3pm[web] @ file:///") and how.endswith(".whl'")


@pytest.mark.parametrize("words", [("page",), ("sheet", "guidance")])
def test_commands_are_there(run: Run, words: tuple[str, ...]) -> None:
    done = run("id3pm", *words, "--help")
    assert done.returncode == 0 and "Usage" in done.stdout, done.stderr


def test_without_a_checkout_the_bundle_must_be_named(run: Run) -> None:
    done = run("id3pm", "build")
    assert done.returncode == 2 and "--bundle is missing" in done.stderr


def test_every_file_of_the_package_is_in_the_wheel(environment: Path) -> None:
    ours = {file.relative_to(ROOT) for file in (ROOT / "id3pm").rglob("*") if file.is_file()}
    ours = {file for file in ours if "__pycache__" not in file.parts}
    site = next((environment / "lib").glob("python*/site-packages"))
    assert sorted(str(file) for file in ours if not (site / file).is_file()) == []


def test_what_is_built_is_served_and_answers(service: str) -> None:
    vector = np.random.Generator(np.random.Philox(5)).standard_normal(128)
    body = json.dumps({"embedding": (vector / np.linalg.norm(vector)).tolist(), "seed": 1}).encode()
    request = urllib.request.Request(f"http://{service}/v2/models/id3pm_png/generate", body)
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
        answer = json.load(response)
    with Image.open(io.BytesIO(base64.b64decode(answer["png"]))) as image:
        assert image.size == (32, 32)
