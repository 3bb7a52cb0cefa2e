"""A data set that a service makes, and one that the engines make in process, are the same files."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from id3pm.errors import ServerError
from id3pm.synthetic.commands import dataset_group
from id3pm.synthetic.maker import Summary, WorkerSettings
from id3pm.synthetic.run import in_this_process, run
from id3pm_client import Retry

pytestmark = pytest.mark.server
SHARDS = 3


@pytest.fixture(scope="module")
def plan(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("plan") / "plan.parquet"
    arguments = ["plan", str(file), "--repository", str(repository), "--identities", str(SHARDS), "--images", "2"]
    arguments += ["--shard-size", "2", "--guidance", "1.5..3", "--attribute", "yaw=-30..30", "--option", "steps=4"]
    arguments += ["--second", "none", "--least-similarity", "none", "--most-other", "none"]
    assert CliRunner().invoke(dataset_group, arguments).exit_code == 0
    return str(file)


@pytest.fixture(scope="module")
def reference(plan: str, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("in_process")
    run(WorkerSettings(plan=plan, out=str(out), repository=str(repository), threads=1), in_this_process)
    return files_of(out)


def files_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def test_served_and_in_process_give_the_same_files(
    server: Any, plan: str, reference: dict[str, bytes], repository: Path, tmp_path: Path
) -> None:
    done = CliRunner().invoke(
        dataset_group,
        ["run", plan, "--out", str(tmp_path), "--repository", str(repository), "--server", server.grpc_url],
    )
    assert done.exit_code == 0, done.exception
    assert len(reference) == 3 * SHARDS + 2 and files_of(tmp_path) == reference


class Line:
    """A TCP connection to the server that can be cut."""

    def __init__(self, url: str) -> None:
        host, _, port = url.rpartition(":")
        self._target = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._cut = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        pairs: dict[socket.socket, socket.socket] = {}
        while not self._cut.is_set():
            ready, _, _ = select.select([self._listener, *pairs], [], [], 0.1)
            for one in ready:
                if one is self._listener:
                    near, far = one.accept()[0], socket.create_connection(self._target, 5)
                    pairs |= {near: far, far: near}
                elif data := one.recv(1 << 16):
                    pairs[one].sendall(data)
                else:
                    other = pairs.pop(one)
                    pairs.pop(other)
                    one.close()
                    other.close()
        for each in (self._listener, *pairs):
            each.close()

    def cut(self) -> None:
        self._cut.set()
        self._thread.join(10)


def test_a_service_that_goes_away_ends_the_run_and_the_rest_is_made_later(
    server: Any, plan: str, reference: dict[str, bytes], repository: Path, tmp_path: Path
) -> None:
    line = Line(server.grpc_url)
    client = {"retry": Retry(limit=0, first_contact=0)}
    settings = WorkerSettings(plan=plan, out=str(tmp_path), servers=(line.url,), client=client, overlap=1)

    def cut_after_the_first(settings: WorkerSettings, numbers: Any, on_image: Any) -> Iterator[Summary]:
        with contextlib.closing(in_this_process(settings, numbers, on_image)) as made:  # type: ignore[type-var]
            yield next(made)
            line.cut()
            yield from made

    with pytest.raises(ServerError, match="127.0.0.1:.*: .*; run again to go on"):
        run(settings, cut_after_the_first)
    left = files_of(tmp_path)
    assert 1 <= len([name for name in left if name.endswith(".tar")]) < SHARDS
    assert not any(name.startswith(".") for name in left)
    run(WorkerSettings(plan=plan, out=str(tmp_path), servers=(server.grpc_url,)), in_this_process)
    assert files_of(tmp_path) == reference
