"""Two processes train what one does: each takes its rows of every batch, in its passes, made ahead by its threads."""

from __future__ import annotations

import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path

import torch
from tiny_training import TINY_BASE, face_arrays

from id3pm.formats import datasets as shards
from id3pm.training import checkpoint
from id3pm.training.initial_weights import build
from id3pm.training.session import SessionOptions, train

CONFIG = dataclasses.replace(
    TINY_BASE, unet=dataclasses.replace(TINY_BASE.unet, dropout=0.0), total_steps=3, accumulation=2
)


def run(data: Path, out: Path, threads: int) -> None:
    """In this process, or in each of those that torchrun has started."""
    options = SessionOptions(data=data, out=out, cpu=True, threads=1, preview_faces=1, data_threads=threads)
    train(CONFIG, options)


def test_two_processes_train_what_one_does(tmp_path: Path) -> None:
    data = tmp_path / "data"
    shards.begin(data, {"kind": "test", "id_vector_model": "none", "identity_dim": 8})
    shards.write_shard(data, 0, face_arrays())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    launcher += ["--master_addr", "127.0.0.1", "--master_port", str(port)]
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    both = subprocess.run(
        [*launcher, __file__, str(data), str(tmp_path / "both")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert both.returncode == 0, both.stderr
    run(data, tmp_path / "one", threads=0)
    one, two = (checkpoint.load(tmp_path / name) for name in ("one", "both"))
    assert two.facts["hardware"].startswith("2 process(es)") and one.step == two.step == 3
    start = build(CONFIG).state_dict()
    apart, changed = (
        torch.cat([(a[name] - b[name]).flatten() for name in start]).norm()
        for a, b in ((two.model, one.model), (one.model, start))
    )
    assert apart / changed < 5e-3, "but for rounding"


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]), threads=2)
