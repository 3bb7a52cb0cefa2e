"""Two processes distil what one does: each makes some of the teacher's results and takes its rows of every batch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_distillation import config_of, write_data
from tiny_teacher import write_teacher

from id3pm.formats.arrays import read_arrays
from id3pm.formats.bundle import load_weights
from id3pm.training.distillation.commands import distill_command
from id3pm.training.distillation.loop import Distiller, load
from id3pm.training.distillation.pairs import KIND
from id3pm.training.distillation.student import from_teacher

PAIRS = 64  # two files, one for each process


def run(folder: Path, out: str, *more: str, steps: int = 3) -> None:
    """`id3pm distill`, in this process or in each of those that torchrun has started."""
    given = ["--teacher", "teacher", "--data", "data", "--repository", ".", "--out", out, "--stage", "base"]
    given += ["--pairs", str(PAIRS), "--teacher-steps", "2", "--optimiser-steps", str(steps), "--batch-size", "8"]
    given += ["--learning-rate", "1e-3", "--identity-loss", "0", "--cpu", "--threads", "1", *more]
    before = Path.cwd()
    os.chdir(folder)
    try:
        distill_command.main(given, standalone_mode=False)
    finally:
        os.chdir(before)


def all_runs(folder: Path) -> None:
    """What both processes do; each leaves the weights that it has at the end of each run."""
    save = Distiller.save

    def save_own(distiller: Distiller) -> None:
        own = [distiller.unet, *([] if distiller._critic is None else [distiller._critic])]
        weights = [value for network in own for value in network.state_dict().values()]
        torch.save(weights, distiller._folder / f"weights_of_{os.environ['RANK']}.pt")
        save(distiller)

    Distiller.save = save_own  # type: ignore[method-assign]
    run(folder, "regression", "--critic", "0")
    run(folder, "straight", steps=4)
    run(folder, "interrupted", steps=2)
    run(folder, "interrupted", "--resume", steps=4)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the runs of two processes."""
    folder = tmp_path_factory.mktemp("both")
    write_teacher(folder / "teacher")
    write_data(folder / "data")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    launcher += ["--master_addr", "127.0.0.1", "--master_port", str(port)]
    tests = Path(__file__).parents[1]
    path = os.pathsep.join(map(str, [tests / "training", tests, tests.parent]))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(
        [*launcher, __file__, str(folder)], env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


def distance(some: dict[str, torch.Tensor], others: dict[str, torch.Tensor]) -> float:
    return float(torch.cat([(value - others[name]).flatten() for name, value in some.items()]).norm())


def test_two_processes_distil_what_one_does(both: Path) -> None:
    run(both, "one", "--critic", "0")
    files = [sorted((both / name / "pairs").iterdir()) for name in ("one", "regression")]
    assert [len(each) for each in files] == [PAIRS // 32, PAIRS // 32]
    for pair in zip(*files, strict=True):
        (one, ones), (two, twos) = (read_arrays(file, KIND) for file in pair)
        assert one == two and ones.keys() == twos.keys()
        assert all(np.array_equal(array, twos[name]) for name, array in ones.items()), pair
    one, two = (load(both / name)[0] for name in ("one", "regression"))
    assert two["facts"]["hardware"].startswith("2 process(es)")
    start = from_teacher(config_of(both / "teacher"), load_weights(both / "teacher", "base")).state_dict()
    assert distance(two["model"], one["model"]) < 5e-3 * distance(one["model"], start), "but for rounding"


@pytest.mark.parametrize("name", ["regression", "straight", "interrupted"])
def test_both_processes_have_the_same_weights(both: Path, name: str) -> None:
    first, second = (torch.load(both / name / f"weights_of_{rank}.pt", weights_only=True) for rank in range(2))
    assert len(first) == len(second) and all(map(torch.equal, first, second))


def test_two_processes_that_were_interrupted_end_with_the_same_bits(both: Path) -> None:
    straight, resumed = (load(both / name)[0] for name in ("straight", "interrupted"))
    assert straight["step"] == resumed["step"] == 4
    for part in ("model", "ema", "critic"):
        assert all(torch.equal(value, resumed[part][name]) for name, value in straight[part].items()), part
    assert straight["balance"] == resumed["balance"]


if __name__ == "__main__":
    all_runs(Path(sys.argv[1]))
