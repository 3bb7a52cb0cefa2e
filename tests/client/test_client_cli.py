"""The command `id3pm-client`."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from id3pm_client import Client, ConnectionFailedError, DeadlineExceededError, InternalServerError, InvalidRequestError
from id3pm_client import _contract as contract
from id3pm_client._cli import main


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch, sync_transport: Any) -> None:
    monkeypatch.setattr("id3pm_client._cli.Client", functools.partial(Client, transport=sync_transport))


@pytest.fixture
def photo(tmp_path: Path) -> str:
    path = tmp_path / "photo.png"
    Image.new("RGB", (4, 4)).save(path)
    return str(path)


def test_embed_then_generate(tmp_path: Path, photo: str, server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    vector = tmp_path / "vector.npy"
    assert main(["embed", "--photo", photo, "--out", str(vector)]) == 0
    assert np.load(vector).tolist() == [0, 1, 2, 3]
    assert "2 face(s), detection score 14.00, vector of 4" in capsys.readouterr().err

    out = tmp_path / "new" / "out"
    assert main(["generate", "--embedding", str(vector), "--seed", "5", "6", "--out", str(out), "--with-64"]) == 0
    captured = capsys.readouterr()
    names = ["000_seed-5.png", "001_seed-6.png"]
    assert sorted(captured.out.split()) == [str(out / name) for name in names]
    assert "image 0, seed 5, 0.0" in captured.err
    with Image.open(out / names[0]) as image:
        assert json.loads(image.text["id3pm"])["seed"] == 5
    assert sorted(path.name for path in out.iterdir()) == sorted([*names, "000_seed-5_64.png", "001_seed-6_64.png"])


def test_every_option_has_a_flag(tmp_path: Path, photo: str, server: Any) -> None:
    values = {"BYTES": "ddim", "INT32": "3", "FP32": "0.5"}
    flags = [
        text
        for name, option in contract.OPTIONS.items()
        for text in (f"--{name.replace('_', '-')}", values[option.datatype])
    ]
    assert main(["generate", "--photo", photo, "--seed", "1", "--face", "only", "--out", str(tmp_path), *flags]) == 0
    (call,) = server.calls
    assert call.model == "id3pm_photo"
    assert set(call.inputs) == {"photo", "face", "seed", *contract.OPTIONS}
    assert not list(tmp_path.glob("*_64.png"))


def test_ping_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ping"]) == 0
    assert json.loads(capsys.readouterr().out)["denoiser_64"] == {"active": 1, "waiting": 2}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InternalServerError("engine failed"), 1),
        (InvalidRequestError("steps=0: must be between 1 and 1000"), 2),
        (ConnectionFailedError("failed to connect"), 3),
        (DeadlineExceededError("late"), 4),
        (KeyboardInterrupt(), 130),
    ],
)
def test_failures_are_one_line_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, photo: str, capsys: pytest.CaptureFixture[str], error: BaseException, code: int
) -> None:
    def embed(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(Client, "embed", embed)
    assert main(["embed", "--photo", photo, "--out", "none.npy"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert str(error) in captured.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["embed", "--photo", "none.jpg", "--out", "x.npy"],
        ["generate", "--embedding", "none.npy", "--seed", "1", "--out", "."],
        ["--timeout", "-1", "ping"],
        ["--url", "http://x:1", "ping"],
    ],
)
def test_bad_files_and_settings_exit_with_2(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_file_that_is_no_array_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "vector.npy"
    for content in (b"", b"not an array"):
        path.write_bytes(content)
        assert main(["generate", "--embedding", str(path), "--seed", "1", "--out", str(tmp_path)]) == 2
        assert "not a .npy file" in capsys.readouterr().err


def test_a_file_without_vectors_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "vectors.npy"
    np.save(path, np.zeros((0, 128), np.float32))
    assert main(["generate", "--embedding", str(path), "--seed", "1", "--out", str(tmp_path)]) == 2
    assert "holds no vector, its shape is (0, 128)" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["generate"], ["generate", "--photo", "x", "--seed", "a", "--out", "."]])
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err
