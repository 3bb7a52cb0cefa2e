"""Every block of README and docs is tried: shell commands run as they are written, at small sizes; the rest is parsed.

A command that is not run here stands in `NOT_RUN` with its reason, and with the test that runs the like of it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tomllib
import torch

from id3pm.formats.bundle import load_weights, read_bundle
from tests.documentation.blocks import ROOT, Block, blocks

SERVER = "needs a running service; tests/integration and tests/client make these calls"
ENGINES = (
    "builds or runs whole engines for minutes; tests/export, tests/evaluation and tests/integration run it smaller"
)
HOURS = "takes hours, or the machine to itself; tests/benchmarks run the tools smaller"
WEIGHTS = "needs weights or pictures that are not in the repository; tests/face and tests/training use stand-ins"
INSTALLS = "installs packages; tests/test_installation.py and .ci/run do"
GPU = "needs a GPU or several processes; tests/export/test_full_size_plans.py and tests/training run what a CPU can"
NOT_RUN = {
    r"make (demo|web|attributes)": ENGINES,
    r"make test": "runs this test",
    r"make (bench|load|fuzz)|python benchmarks/": HOURS,
    r"python export/build_engines.py .*(tensorrt|onnx-cuda)|torchrun": GPU,
    r"python export/build_engines.py .*--face-model insightface": WEIGHTS,
    r"python export/build_engines.py|id3pm build( |$)": ENGINES,
    r"(python export/face_models.py|id3pm build-faces) .*PATH": WEIGHTS,
    r"id3pm convert .*ema_0.9999": WEIGHTS,
    r"id3pm embed-dataset images1024x1024|id3pm train .*data/ffhq": WEIGHTS,
    r"id3pm latent .*vectors.npy": WEIGHTS,
    r"id3pm (sheet|analyse|evaluate|baseline compare)": ENGINES,
    r"id3pm baseline train .*--vgg": WEIGHTS,
    r"id3pm dataset|sbatch": "makes images for minutes; tests/synthetic makes tiny ones",
    r"id3pm (distill|export-student)": "needs a bundle and a data set; tests/training/test_distillation.py makes both",
    r"id3pm export-bundle .*--task": "needs two bundles besides; tests/training/test_run.py makes them",
    r"id3pm study": "needs the pictures of a comparison; tests/evaluation/user_study makes a page of its own",
    r"id3pm (serve|page)|id3pm-client|curl|grpcurl|\(printf": SERVER,
    r"pip ": INSTALLS,
    r"id3pm (push|pull)": "needs a hub or a registry; tests/artifacts has both",
    r"envoy ": "serves until it is stopped; tests/deploy/test_envoy.py runs it",
    r"id3pm measure-dataset|id3pm train .*--attributes": "needs mediapipe; tests/training/test_measured.py",
    r"python demo/screenshots.py": "needs a browser and the page; tests/integration/test_page.py visits it",
    r"docker|kubectl|helm": "needs a registry and a cluster; tests/deploy renders what helm installs",
    r"openssl": "tests/contract/test_documented_certificate.py",
}
SMALL = {
    "id3pm train": "--preset demo --steps 1 --batch-size 2 --precision no --identity-loss 0 --cpu --threads 1",
    "id3pm demo-dataset": "--count 30 --workers 1",
    "id3pm baseline gan": "--queries 32 --seeds 1 --bank 4",
    "id3pm baseline train nbnet": "--batch-size 2 --steps 1 --threads 1",
    "id3pm baseline train vec2face": "--batch-size 2 --student-steps 1 --steps 1 --threads 1",
    "id3pm convert": "--no-proof",
}
"""What is added to a command so that it is quick; the last of an option given twice counts."""
STAND_INS = {
    "PICTURES": "demo/people",
    "portrait.jpg": "demo/people/03.png",
    "base.json": "bundles/demo/bundle.json",
    "sr.json": "bundles/demo/bundle.json",
}
PHOTOGRAPHS = ("anna.jpg", "ben.jpg", "a1.jpg", "a2.jpg", "a3.jpg")
TIMEOUT_S = 600
"""Of the commands of a block, which take seconds on a machine with nothing else to do."""
BLOCKS = blocks()


def reason(command: str) -> str | None:
    """Why a command is not run; `None` where it is."""
    return next((why for pattern, why in NOT_RUN.items() if re.match(pattern, command)), None)


RUN = [block for block in BLOCKS if block.language == "sh" and not all(map(reason, block.commands))]


@pytest.fixture(scope="module")
def workplace(face_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like a checkout in which `make engines` has built the face models."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("demo", "docs", "export"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "bundles/demo", folder / "bundles/demo")
    shutil.copytree(face_folder, folder / "triton_repo/face_embedding/1/engine")
    for stage in ("base", "sr"):
        weights = load_weights(ROOT / "bundles/demo", stage)  # type: ignore[arg-type]
        torch.save({key: torch.from_numpy(array) for key, array in weights.items()}, folder / f"{stage}.pt")
    for name, person in zip(PHOTOGRAPHS, sorted((ROOT / "demo/people").glob("*.png")), strict=False):
        shutil.copy(person, folder / name)
    return folder


def small(command: str) -> str:
    """A command with stand-ins for what the reader brings, and with small sizes."""
    parts = []
    for part in command.split(" && "):
        words = [STAND_INS.get(word, word) for word in part.split(" ")]
        parts.append(" ".join([*words, *(more for start, more in SMALL.items() if part.startswith(start))]))
    return " && ".join(parts)


def run(folder: Path, commands: list[str]) -> None:
    """Runs commands as a reader's shell does, until one fails."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    script = "set -eux\n" + "\n".join(map(small, commands))
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.mark.timeout(2 * TIMEOUT_S)
@pytest.mark.parametrize("block", RUN, ids=[f"{block.page}: {block.commands[0][:40]}" for block in RUN])
def test_commands_run_as_they_are_written(workplace: Path, block: Block) -> None:
    if any("data/demo" in command for command in block.commands) and not (workplace / "data/demo").exists():
        run(workplace, ["id3pm demo-dataset"])
    run(workplace, [command for command in block.commands if reason(command) is None])


def test_training_ends_in_a_bundle(workplace: Path) -> None:
    """The first block of docs/training.md, which the test above has run."""
    assert read_bundle(workplace / "bundles/mine").licence == "all rights reserved"


def test_every_reason_has_a_command_and_important_commands_run() -> None:
    commands = [command for block in BLOCKS if block.language == "sh" for command in block.commands]
    for pattern in NOT_RUN:
        assert any(re.match(pattern, command) for command in commands), f"no command begins with {pattern}"
    run_here = {" ".join(command.split()[:2]) for command in commands if reason(command) is None}
    assert {"id3pm embed-dataset", "id3pm train", "id3pm export-bundle", "id3pm convert", "id3pm latent"} <= run_here


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page}: {block.text.split()[0][:30]}")
def test_every_block_is_what_its_language_says(block: Block) -> None:
    match block.language:
        case "python":
            compile(block.text, block.page, "exec")
        case "json":
            assert json.loads(block.text)
        case "sh":
            subprocess.run(["bash", "-n", "-c", block.text], check=True, timeout=20, capture_output=True)
            assert block.commands
        case _:
            if block.text.startswith("[["):
                assert tomllib.loads(block.text)
            else:  # diagrams
                assert "->" in block.text, f"{block.page}: a block of no known kind: {block.text}"
