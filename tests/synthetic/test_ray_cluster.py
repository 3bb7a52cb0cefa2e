"""A real Ray cluster on this machine: two nodes of two workers, of which one is killed in the middle.

Minutes, and 80 MB that `dev` does not install: pip install -e '.[ray]'.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import made_up_plans as made
import pytest
from click.testing import CliRunner
from waiting import wait_until

from id3pm.errors import InvalidInputError, ServerError
from id3pm.synthetic import ray_cluster
from id3pm.synthetic.commands import dataset_group
from id3pm.synthetic.maker import Summary, WorkerSettings
from id3pm.synthetic.ray_cluster import RayOptions, on_ray
from id3pm.synthetic.run import in_this_process, run

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.filterwarnings("default")]
SHARDS = 8


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of a cluster with two nodes of two CPUs each."""
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    nodes.add_node(num_cpus=2)
    try:
        yield nodes.address
    finally:
        nodes.shutdown()


@pytest.fixture(scope="module")
def plan(tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("plan") / "plan.parquet"
    arguments = ["plan", str(file), "--repository", str(tiny_repository), "--identities", str(SHARDS), "--images", "3"]
    arguments += ["--shard-size", "3", "--option", "steps=20", "--second", "none", "--least-similarity", "none"]
    assert CliRunner().invoke(dataset_group, [*arguments, "--most-other", "none"]).exit_code == 0
    return str(file)


def settings(plan: str, out: Path, repository: Path) -> WorkerSettings:
    return WorkerSettings(plan=plan, out=str(out), repository=str(repository), threads=1, overlap=1)


def test_the_files_are_those_of_one_process_though_a_worker_is_killed(
    cluster: str, plan: str, tiny_repository: Path, tmp_path: Path
) -> None:
    run(settings(plan, tmp_path / "one", tiny_repository), in_this_process)
    killed: list[int] = []

    def kill_a_worker(settings: WorkerSettings, numbers: Any, on_image: Any) -> Iterator[Summary]:
        make = on_ray(RayOptions(address=cluster, workers=4, cpus=1.0))

        def kill() -> None:
            wait_until(lambda: list((tmp_path / "ray").glob("*.tar")), timeout_s=120)
            killed.append(working_actor())
            os.kill(killed[0], signal.SIGKILL)

        thread = threading.Thread(target=kill)
        thread.start()
        yield from make(settings, numbers, on_image)
        thread.join(120)

    totals = run(settings(plan, tmp_path / "ray", tiny_repository), kill_a_worker)
    assert totals.made + totals.there == SHARDS and killed
    assert made.files_of(tmp_path / "ray") == made.files_of(tmp_path / "one")


def working_actor() -> int:
    """Process id of an actor that is in the middle of a shard."""
    found: list[int] = []

    def look() -> list[int]:
        for folder in Path("/proc").iterdir():
            if folder.name.isdecimal():
                try:
                    command = (folder / "cmdline").read_bytes()
                except OSError:
                    continue
                if command.startswith(b"ray::_Worker.make"):
                    found.append(int(folder.name))
        return found

    wait_until(look, timeout_s=60)
    return found[0]


def test_workers_that_fit_nowhere_hold_up_no_shard(
    cluster: str, plan: str, tiny_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where there is no autoscaler: four of the eight begin."""
    totals = run(settings(plan, tmp_path, tiny_repository), on_ray(RayOptions(address=cluster, workers=8)))
    assert totals.made == SHARDS
    monkeypatch.setattr(ray_cluster, "START_S", 1.0)
    none = on_ray(RayOptions(address=cluster, workers=1, cpus=3.0))
    with pytest.raises(ServerError, match="no Ray worker began within"):
        list(none(settings(plan, tmp_path, tiny_repository), [0], lambda kept: None))


def test_what_is_wrong_with_a_shard_is_the_error_of_the_run(
    cluster: str, plan: str, tiny_repository: Path, tmp_path: Path
) -> None:
    out = tmp_path / "file"
    out.write_bytes(b"")
    nowhere = settings(plan, tmp_path / "out", tmp_path / "nothing")
    with pytest.raises(ServerError, match="no engine has been built in .*nothing"):
        list(on_ray(RayOptions(address=cluster))(nowhere, [0], lambda kept: None))
    with pytest.raises(InvalidInputError, match="no worker of 1 CPUs and 1 GPUs fits"):
        list(on_ray(RayOptions(address=cluster, gpus=1.0))(nowhere, [0], lambda kept: None))
