"""Runs: the same plan gives the same bytes, however it is run and however often it is interrupted."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec.implementations.memory
import made_up_plans as made
import pytest
from click.testing import CliRunner, Result
from tiny_engines import rewrite_manifest

from id3pm.engines.manifest import read_manifest
from id3pm.errors import Id3pmError, InvalidInputError, ServerError
from id3pm.synthetic import ray_cluster
from id3pm.synthetic.check import check_dataset
from id3pm.synthetic.commands import dataset_group
from id3pm.synthetic.errors import OtherDatasetError
from id3pm.synthetic.maker import ShardMaker, WorkerSettings, open_plan
from id3pm.synthetic.processes import in_processes
from id3pm.synthetic.run import in_this_process, run, shards_of_part
from id3pm.synthetic.run_options import RunOptions
from id3pm.synthetic.store import LocalStore, StoreError, open_store, split
from id3pm_client import Retry

SHARDS = 4


def command(*arguments: object) -> Result:
    return CliRunner().invoke(dataset_group, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def plan(tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("plan") / "plan.parquet"
    done = command(
        *("plan", file, "--repository", tiny_repository, "--identities", SHARDS, "--images", 3, "--shard-size", 3),
        *("--guidance", "1.5..3", "--attribute", "yaw=-30..30"),
        *("--second", "none", "--least-similarity", "none", "--most-other", "none"),
    )
    assert done.exit_code == 0, done.exception
    return str(file)


@pytest.fixture(scope="module")
def reference(plan: str, tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a run without any interruption, one shard after the other."""
    out = tmp_path_factory.mktemp("reference")
    totals = run(settings(plan, out, tiny_repository, overlap=1), in_this_process)
    assert (totals.made, totals.kept, totals.missing) == (SHARDS, 3 * SHARDS, 0)
    return made.files_of(out)


def settings(plan: str, out: object, repository: Path, **changes: Any) -> WorkerSettings:
    return WorkerSettings(plan=plan, out=str(out), repository=str(repository), threads=1, **changes)


def test_the_files_are_the_same_in_any_order_of_shards(
    plan: str, reference: dict[str, bytes], tiny_repository: Path, tmp_path: Path
) -> None:
    for part in (2, 0, 1):
        done = command(
            *("run", plan, "--out", tmp_path, "--repository", tiny_repository, "--threads", 1),
            *("--parts", 3, "--part", part, "--overlap", 3),
        )
        assert done.exit_code == 0, done.exception
    assert made.files_of(tmp_path) == reference
    again = command("run", plan, "--out", tmp_path, "--repository", tiny_repository)
    assert again.output.endswith(f"0 shards made, {SHARDS} were there: 0 images, 0 rejected, 0 missing\n")


def test_the_index_of_a_job_names_the_part(
    plan: str, tiny_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "2")
    arguments = ("run", plan, "--out", tmp_path, "--repository", tiny_repository)
    assert command(*arguments, "--parts", SHARDS).exit_code == 0
    assert {file.name for file in tmp_path.glob("*.tar")} == {"00002.tar"}
    refused = command(*arguments)
    assert "part=2: must be from 0 to 0 with --parts 1" in str(refused.exception)
    assert sorted(sum((shards_of_part(10, 3, part) for part in range(3)), [])) == list(range(10))


KILLED = """
import os, signal, sys
import id3pm.synthetic.store as store
replace, left = os.replace, [int(sys.argv.pop(1))]
def replace_or_die(source, target):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    replace(source, target)
store.os.replace = replace_or_die
from id3pm.cli import main
main()
"""


@pytest.mark.parametrize("writes", [1, 5], ids=["within the first shard", "within the second"])
def test_kill_9_and_a_rerun_leave_the_same_files(
    writes: int, plan: str, reference: dict[str, bytes], tiny_repository: Path, tmp_path: Path
) -> None:
    arguments = ("dataset", "run", plan, "--out", tmp_path, "--repository", tiny_repository, "--threads", "1")
    program = [sys.executable, "-c", KILLED, str(writes), *map(str, arguments)]
    killed = subprocess.run(program, capture_output=True, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    left = made.files_of(tmp_path)
    assert any(name.endswith(".partial") for name in left), "killed in the middle of a write"
    assert len([name for name in left if name.endswith(".tar")]) <= writes // 3
    run(settings(plan, tmp_path, tiny_repository), in_this_process)
    assert made.files_of(tmp_path) == reference


def test_an_object_store_holds_the_same_files(plan: str, reference: dict[str, bytes], tiny_repository: Path) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/plans/plan.parquet", Path(plan).read_bytes())
    run(settings("memory://plans/plan.parquet", "memory://bucket/faces", tiny_repository), in_this_process)
    found = {name.rsplit("/", 1)[-1]: memory.cat_file(name) for name in memory.ls("/bucket/faces", detail=False)}
    assert found == reference
    report = check_dataset(open_store("memory://bucket/faces"), None, 1.0)
    assert (report.images, report.problems) == (3 * SHARDS, [])


def test_processes_share_the_shards(
    plan: str, reference: dict[str, bytes], tiny_repository: Path, tmp_path: Path
) -> None:
    totals = run(settings(plan, tmp_path, tiny_repository), in_processes(["cpu", "cpu"]))
    assert totals.made == SHARDS and made.files_of(tmp_path) == reference


def test_an_error_in_a_process_is_the_errors_of_the_run(plan: str, tmp_path: Path) -> None:
    with pytest.raises(Id3pmError, match="no engine has been built in .*nothing"):
        run(settings(plan, tmp_path / "out", tmp_path / "nothing"), in_processes(["cpu"]))


def test_two_runs_at_once_on_one_folder_agree(
    plan: str, reference: dict[str, bytes], tiny_repository: Path, tmp_path: Path
) -> None:
    totals: list[Any] = []
    threads = [
        threading.Thread(target=lambda: totals.append(run(settings(plan, tmp_path, tiny_repository), in_this_process)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [total.there + total.made for total in totals] == [SHARDS, SHARDS]
    assert made.files_of(tmp_path) == reference


def test_the_slurm_script_makes_the_part_of_its_task(
    plan: str, reference: dict[str, bytes], tiny_repository: Path, tmp_path: Path
) -> None:
    script = Path(__file__).parents[2] / "deploy/slurm/dataset.sbatch"
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ID3PM_REPOSITORY": str(tiny_repository),
        "ID3PM_DEVICE": "cpu",
        "SLURM_ARRAY_TASK_ID": "1",
        "SLURM_ARRAY_TASK_COUNT": str(SHARDS),
        "SLURM_ARRAY_TASK_MIN": "0",
        "SLURM_ARRAY_TASK_MAX": str(SHARDS - 1),
    }
    subprocess.run(["bash", str(script), plan, str(tmp_path)], env=environment, check=True, timeout=120)
    found = made.files_of(tmp_path)
    assert [name for name in found if name.endswith(".tar")] == ["00001.tar"]
    assert found.items() <= reference.items()
    for least, most, count in (("1", "4", "4"), ("0", "6", "4"), ("3", "3", "1")):  # 1-4, 0-6:2 and 3
        array = {"SLURM_ARRAY_TASK_MIN": least, "SLURM_ARRAY_TASK_MAX": most, "SLURM_ARRAY_TASK_COUNT": count}
        other = subprocess.run(
            ["bash", str(script), plan, str(tmp_path)],
            env={**environment, **array},
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert other.returncode == 2 and b"the array must be 0-" in other.stderr


def maker(data: bytes, folder: Path, weights: str = "0", engine: str = "e") -> ShardMaker:
    class Other(made.ColorGenerator):
        def generate(self, jobs: Any) -> Iterator[Any]:
            for image in super().generate(jobs):
                image.receipt.update(made.receipt(image.receipt["seed"], engine, weights))
                yield image

    plan = made.opened(data)
    return ShardMaker(plan, LocalStore(folder), Other(), made.judges(plan))


def test_another_bundle_plan_or_engine_is_refused_by_name(tmp_path: Path) -> None:
    data = made.plan_data()
    maker(data, tmp_path).make(0)
    before = made.files_of(tmp_path)
    with pytest.raises(
        OtherDatasetError, match=r"the plan is for bundle made up \(weights base 00000000.*base 77777777"
    ):
        maker(data, tmp_path, weights="7").make(1)
    with pytest.raises(OtherDatasetError, match=r"environment.stages.base.engine_sha256: there 'e', here 'other'"):
        maker(data, tmp_path, engine="other").make(1)
    with pytest.raises(OtherDatasetError, match="plan_sha256: there '"):
        maker(made.plan_data(images=3), tmp_path).make(1)
    assert made.files_of(tmp_path) == before


def test_another_plan_is_refused_though_all_shards_are_there(
    plan: str, reference: dict[str, bytes], tiny_repository: Path, tmp_path: Path
) -> None:
    for name, data in reference.items():
        (tmp_path / name).write_bytes(data)
    other = tmp_path / "other.plan"
    other.write_bytes(made.plan_data())
    with pytest.raises(OtherDatasetError, match="holds images of another plan"):
        run(settings(str(other), tmp_path, tiny_repository), in_this_process)


def test_a_changed_bundle_is_refused_before_the_first_image_with_status_3(
    plan: str, tiny_repository: Path, tmp_path: Path
) -> None:
    changed = tmp_path / "repository"
    shutil.copytree(tiny_repository, changed)
    for stage in ("denoiser_64", "super_resolution"):
        folder = changed / stage / "1/engine"
        manifest = read_manifest(folder)
        bundle = dataclasses.replace(manifest.bundle, name="successor", weights_sha256="9" * 64)
        rewrite_manifest(folder, manifest, bundle=bundle)
    done = CliRunner().invoke(
        dataset_group,
        ["run", plan, "--out", str(tmp_path / "out"), "--repository", str(changed)],
        standalone_mode=False,
    )
    assert done.return_value == 3
    assert "the plan is for bundle tiny (weights base 00000000" in done.output and "successor" in done.output
    assert not list((tmp_path / "out").glob("*.tar"))


def test_damaged_shards_are_found_and_made_again(
    plan: str, reference: dict[str, bytes], tiny_repository: Path, tmp_path: Path
) -> None:
    run(settings(plan, tmp_path, tiny_repository), in_this_process)
    whole = check_dataset(LocalStore(tmp_path), None, 1.0)
    assert (whole.images, whole.missing_shards, whole.problems) == (3 * SHARDS, [], [])
    tar = tmp_path / "00001.tar"
    data = bytearray(tar.read_bytes())
    at = data.index(b"IDAT")
    data[at + 10] ^= 1
    tar.write_bytes(data)
    (tmp_path / "00002.parquet").write_bytes(b"nothing")
    (tmp_path / "00003.tar").write_bytes((tmp_path / "00003.tar").read_bytes()[:700])
    report = check_dataset(LocalStore(tmp_path), None, 1.0)
    assert report.digest != whole.digest
    assert [problem.split(":")[0] for problem in report.problems] == ["shard 00001", "shard 00002", "shard 00003"]
    assert "the picture 000000003 is damaged" in report.problems[0]
    done = command("check", tmp_path)
    assert "problem: shard 00002: 00002.parquet is damaged" in done.output
    for number in (1, 2, 3):
        (tmp_path / f"0000{number}.tar").unlink()
    run(settings(plan, tmp_path, tiny_repository), in_this_process)
    assert made.files_of(tmp_path) == reference
    assert check_dataset(LocalStore(tmp_path), None, 1.0).digest == whole.digest


def test_a_data_set_without_a_plan_says_what_is_missing(plan: str, reference: dict[str, bytes], tmp_path: Path) -> None:
    for name, data in reference.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "plan.parquet").unlink()
    for arguments in (("check", tmp_path), ("export", tmp_path, "--to", "parquet", "--out", tmp_path / "table")):
        refused = command(*arguments).exception
        assert isinstance(refused, InvalidInputError), refused
        assert "has no plan.parquet" in str(refused) and "copy the plan that id3pm dataset run was given" in str(
            refused
        )
    refused = command("run", tmp_path / "none.parquet", "--out", tmp_path / "out").exception
    assert isinstance(refused, InvalidInputError) and "none.parquet does not exist: make a plan with" in str(refused)


def test_a_data_set_of_which_every_image_was_rejected_is_an_error_and_stays_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = made.plan_data(images=1, filters=made.filters(attempts=1)), tmp_path / "out"
    (tmp_path / "plan.parquet").write_bytes(data)
    planned = made.opened(data)
    generator = made.ColorGenerator({10 * identity: None for identity in range(3)})  # pictures without a face
    shards = ShardMaker(planned, LocalStore(out), generator, made.judges(planned))
    monkeypatch.setattr(RunOptions, "make", lambda self: lambda settings, numbers, told: map(shards.make, numbers))
    asked = ["run", str(tmp_path / "plan.parquet"), "--out", str(out), "--repository", str(tmp_path), "--parts", "3"]
    # The last part to end sees the whole; so does a second try.
    for part, status in (("0", 0), ("1", 0), ("2", 1), ("2", 1)):
        done = CliRunner().invoke(dataset_group, [*asked, "--part", part], standalone_mode=False)
        assert done.exception is None and done.return_value == status, done.exception
    assert "every image was rejected" in done.output and "--least-similarity" in done.output
    (out / "00001.tar").unlink()
    (out / "00001.parquet").unlink()
    generator = made.ColorGenerator({})
    shards = ShardMaker(planned, LocalStore(out), generator, made.judges(planned))
    done = CliRunner().invoke(dataset_group, [*asked, "--part", "1"], standalone_mode=False)
    assert done.return_value == 0 and "1 images" in done.output


def test_a_report_counts_and_draws_similarities(tmp_path: Path) -> None:
    data = made.plan_data(images=6, filters=made.filters(most_other=0.9))
    folder = tmp_path / "faces"
    folder.mkdir()
    (folder / "plan.parquet").write_bytes(data)
    plan = made.opened(data)
    generator = made.ColorGenerator({0: made.AXES[1], 1: None})
    for number in (0, 1):
        ShardMaker(plan, LocalStore(folder), generator, made.judges(plan)).make(number)
    done = command("check", folder, "--report", tmp_path / "report", "--too-close", 91)
    assert "2 of 3 shards, 12 of 18 images, 2 identities" in done.output
    assert "missing shards: 2\n" in done.output and "rejected: 1 no_face, 1 similarity" in done.output
    assert "3 pairs of identities are too close (degrees): 0 and 1 (90.0)" in done.output
    assert (tmp_path / "report/similarities.png").read_bytes()[:4] == b"\x89PNG"
    assert '"digest"' in (tmp_path / "report/check.json").read_text()


def test_a_folder_that_cannot_be_written_ends_the_run_with_nothing_half_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        maker(made.plan_data(), tmp_path / "file" / "out").make(0)

    class Full(LocalStore):
        def write(self, name: str, data: bytes) -> None:
            if name.endswith(".tar"):
                raise OSError(28, "No space left on device", name)
            super().write(name, data)

    plan = made.opened(made.plan_data())
    full = ShardMaker(plan, Full(tmp_path / "full"), made.ColorGenerator(), made.judges(plan))
    with pytest.raises(OSError, match="No space left"):
        full.make(0)
    assert not list((tmp_path / "full").glob("*.tar")) and not list((tmp_path / "full").glob(".*"))
    maker(made.plan_data(), tmp_path / "full").make(0)
    maker(made.plan_data(), tmp_path / "other").make(0)
    assert made.files_of(tmp_path / "full") == made.files_of(tmp_path / "other")


def test_partial_files_of_running_processes_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".ended~ab.partial").write_bytes(b"")
    store = LocalStore(tmp_path)
    with store._partial("running", b"1") as partial:
        assert LocalStore(tmp_path).names() == set()
        assert list(tmp_path.iterdir()) == [partial]
    assert not list(tmp_path.iterdir())


def test_stores_name_what_they_cannot_do() -> None:
    with pytest.raises(InvalidInputError, match="nonsense://x"):
        open_store("nonsense://x")
    store = open_store("memory://nowhere")
    with pytest.raises(StoreError, match="memory://nowhere/absent"):
        store.read("absent")
    assert store.names() == set() and store.write_new("a", b"1") and not store.write_new("a", b"2")
    assert store.read("a") == b"1"


@pytest.mark.parametrize(
    "address", ["", "s3:/bucket/faces", "gs:bucket/faces", "s3://", "memory:///", "file://", "nul\0l/faces"]
)
def test_addresses_that_would_be_folders_by_mistake_are_refused(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError, match="name a|two slashes"):
        open_store(address)
    for file in (f"{address}/", f"{address.rstrip('/')}://plan.parquet" if "://" in address else ""):
        with pytest.raises(InvalidInputError, match="name a file"):
            split(file)
    assert not list(tmp_path.iterdir())


def test_any_other_characters_are_those_of_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = made.plan_data()
    for address in ("a b/ü#%20?.parquet", "./s3:/x", f"file://{tmp_path}/c d/e", "memory://odd/a b#c?d=%20", "x'\n/y"):
        store, name = split(address)
        store.write(name, data)
        assert store.read(name) == data and open_plan(address).header.images == 6
        assert name in store.names()
    assert (tmp_path / "a b/ü#%20?.parquet").read_bytes() == (tmp_path / "c d/e").read_bytes() == data


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--workers", "2"), "--workers: needs --ray"),
        (("--gpus", "1"), "--gpus: needs --ray"),
        (("--cpus", "2"), "--cpus: needs --ray"),
        (("--in-flight", "2"), "--in-flight: needs --server"),
        (("--timeout", "20"), "--timeout: needs --server"),
        (("--server", "a:1", "--device", "cuda"), "--device: is for engines of this machine"),
        (("--server", "a:1", "--threads", "1"), "--threads: is for engines of this machine"),
        (("--server", "a:1", "--ray", "auto"), "--server and --ray: give one of"),
        (("--processes", "2", "--ray", "auto"), "--processes and --ray: give one of"),
        (("--ray", "auto", "--device", "cuda:0,cuda:1"), "with --ray give cuda"),
        (("--ray", ""), "--ray '': give auto, local, HOST:PORT or ray://HOST:PORT"),
        (("--ray", "127.0.0.1"), "--ray '127.0.0.1': give auto"),
        (("--ray", "http://127.0.0.1:9"), "give auto"),
        (("--ray", "127.0.0.1:99999"), "give auto"),
        (("--ray", "127.0.0.1:9"), "--ray 127.0.0.1:9: nothing answers there"),
        (("--ray", "ray://[::1]:9"), "nothing answers there"),
    ],
    ids=" ".join,
)
def test_options_that_would_do_nothing_are_refused_at_once(
    options: tuple[str, ...], words: str, plan: str, tiny_repository: Path, tmp_path: Path
) -> None:
    done = command("run", plan, "--out", tmp_path / "out", "--repository", tiny_repository, *options)
    assert isinstance(done.exception, Id3pmError) and words in str(done.exception)
    assert not list((tmp_path / "out").glob("*.tar"))


def test_a_port_that_is_not_rays_is_refused_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "CONNECT_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        begun = time.monotonic()
        with pytest.raises(ServerError, match=f"--ray {address}: what answers there is no Ray cluster"):
            ray_cluster._require_listener(address)
        assert time.monotonic() - begun < 20


def test_no_bucket_is_made_of_a_misspelt_name(monkeypatch: pytest.MonkeyPatch) -> None:
    made_folders: list[str] = []
    for name in ("mkdir", "makedirs"):
        monkeypatch.setattr(
            fsspec.implementations.memory.MemoryFileSystem, name, lambda *at, **_: made_folders.append(at)
        )
    open_store("memory://buckte/faces").write("a", b"1")
    assert not made_folders


def test_a_service_that_is_not_there_ends_the_run(plan: str, tiny_repository: Path, tmp_path: Path) -> None:
    client = {"retry": Retry(limit=0, first_contact=0)}
    there = settings(plan, tmp_path, tiny_repository, servers=("127.0.0.1:9",), client=client, timeout_s=5.0)
    with pytest.raises(ServerError, match="127.0.0.1:9"):
        run(there, in_this_process)
    assert not list(tmp_path.glob("*.tar"))
