"""The command `id3pm-client`."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from id3pm_client import (
    AsyncClient,
    Client,
    ConnectionFailedError,
    DeadlineExceededError,
    Embedding,
    InternalServerError,
    InvalidRequestError,
    ReplayError,
)
from id3pm_client import _contract as contract
from id3pm_client._cli import main
from tests.client.conftest import FakeAsyncTransport, FakeServer, FakeSyncTransport


def marked(folder: Path) -> set[str]:
    """Names of the pictures in a folder that say that a model made them."""
    names = set()
    for path in folder.glob("*.png"):
        with Image.open(path) as image:
            if image.text.get(contract.PNG_XMP_KEY) == contract.GENERATED_XMP:
                names.add(path.name)
    return names


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch, server: FakeServer) -> None:
    """Each command has a client, and each client a connection, of its own."""
    monkeypatch.setattr(
        "id3pm_client._cli.Client", lambda **given: Client(transport=FakeSyncTransport(server), **given)
    )
    monkeypatch.setattr(
        "id3pm_client._cli.AsyncClient", lambda **given: AsyncClient(transport=FakeAsyncTransport(server), **given)
    )


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
    assert "2/2 images" in captured.err
    with Image.open(out / names[0]) as image:
        assert json.loads(image.text["id3pm"])["seed"] == 5
    assert marked(out) == {*names, "000_seed-5_64.png", "001_seed-6_64.png"} == {path.name for path in out.iterdir()}
    with Image.open(out / "001_seed-6_64.png") as small:
        assert json.loads(small.text["id3pm"])["seed"] == 6


def test_a_saved_vector_brings_the_name_of_its_model(
    tmp_path: Path, photo: str, server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    named, plain, out = str(tmp_path / "vector.npz"), str(tmp_path / "vector.npy"), str(tmp_path / "out")
    for file in (named, plain):
        assert main(["embed", "--photo", photo, "--out", file]) == 0
    for file, sent in ((named, [[b"sface"]]), (plain, None)):
        server.calls.clear()
        assert main(["generate", "--embedding", file, "--seed", "5", "--out", out, "--overwrite"]) == 0
        first = next(call for call in server.calls if "embedding" in call.inputs)
        assert first.inputs["embedding"].tolist() == [[0, 1, 2, 3]]
        assert (first.inputs["id_vector_model"].tolist() if sent else first.inputs.get("id_vector_model")) == sent
    capsys.readouterr()
    wrong = [
        "generate",
        "--embedding",
        named,
        "--seed",
        "5",
        "--out",
        out,
        "--overwrite",
        "--id-vector-model",
        "facenet",
    ]
    assert main(wrong) == 2
    assert "vector.npz has vectors of sface" in capsys.readouterr().err


@pytest.mark.parametrize(
    "description", ["{", '"text"', '{"kind": "pca", "id_vector_model": "sface"}', '{"kind": "vectors"}']
)
def test_a_file_whose_description_is_not_of_vectors_exits_with_2(
    tmp_path: Path, description: str, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "v.npz", description=np.array(description), vectors=np.ones((1, 4), np.float32))
    assert main(["generate", "--embedding", str(tmp_path / "v.npz"), "--seed", "1", "--out", str(tmp_path)]) == 2
    assert "nor .npz with vectors" in capsys.readouterr().err


def test_every_option_has_a_flag(tmp_path: Path, photo: str, server: Any) -> None:
    values = {"BYTES": "ddim", "INT32": "3", "FP32": "0.5"}
    flags = [
        text
        for name, option in contract.OPTIONS.items()
        for text in (f"--{name.replace('_', '-')}", values[option.datatype])
    ]
    assert main(["generate", "--photo", photo, "--seed", "1", "--face", "only", "--out", str(tmp_path), *flags]) == 0
    analysis, call = server.calls  # a photograph is analysed first, which tells of other faces
    assert analysis.model == "face_embedding"
    assert call.model == "id3pm"
    assert set(call.inputs) == {"embedding", "seed", *contract.OPTIONS}
    assert not list(tmp_path.glob("*_64.png"))


def test_describe_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe"]) == 0
    assert json.loads(capsys.readouterr().out)["bundle"] == "demo"


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
        (ReplayError("stages.base.engine_sha256 differs"), 5),
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
        ["--token-file", "none.txt", "ping"],
        ["replay", "none.png", "--photo", "none.jpg", "--out", "x.png"],
        ["replay", "none.png", "--photo", "none.jpg", "--out", "x.jpg"],
        ["bench", "--photo", "x", "--images", "0"],
        ["bench", "--photo", "x", "--seconds", "0"],
        ["bench", "--photo", "x", "--images", "1", "--concurrency", "0"],
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


def test_stream_writes_what_it_sees(
    tmp_path: Path, photo: str, server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    server.delay_s = lambda call: None if call.model in ("denoiser_64", "super_resolution") else 0.0
    arguments = ["stream", "--photo", photo, "--seed", "7", "--preview-every", "2", "--steps", "4"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    captured = capsys.readouterr()
    names = ["seed-7_denoiser_64_0002.png", "seed-7_64.png", "seed-7_super_resolution_0002.png", "seed-7.png"]
    assert captured.out.split() == [str(tmp_path / "out" / name) for name in names]
    with Image.open(tmp_path / "out" / "seed-7.png") as image:
        assert json.loads(image.text["id3pm"])["seed"] == 7
    assert marked(tmp_path / "out") == set(names)
    assert server.calls[1].inputs["steps"].tolist() == [[4]]


@pytest.mark.parametrize("shape", [(4,), (1, 4)])
def test_one_vector_may_be_streamed_and_replayed(
    tmp_path: Path, server: Any, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    np.save(tmp_path / "vector.npy", np.ones(shape, np.float32))
    source = ["--embedding", str(tmp_path / "vector.npy")]
    assert main(["stream", *source, "--seed", "7", "--preview-every", "0", "--out", str(tmp_path)]) == 0
    seen: dict[str, Any] = {}

    def replay(self: Client, receipt: Any, embedding: Any, **more: Any) -> Any:
        seen.update(receipt=receipt, shape=embedding.shape, **more)
        return self.generate(embedding, 7)

    monkeypatch.setattr(Client, "replay", replay)
    face = tmp_path / "seed-7.png"
    assert main(["replay", str(face), *source, "--out", str(tmp_path / "again.png")]) == 0
    assert (tmp_path / "again.png").read_bytes() == face.read_bytes()
    assert seen == {"receipt": face, "shape": (4,)}


def test_bench_measures_and_asks_for_no_image_twice(
    tmp_path: Path, server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    server.delay_s = lambda call: 0.02
    np.save(tmp_path / "vectors.npy", np.ones((3, 4), np.float32))
    arguments = ["bench", "--embedding", str(tmp_path / "vectors.npy"), "--concurrency", "4", "--seed", "100"]
    assert main([*arguments, "--images", "20", "--json", "--sr-steps", "2"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["images"], result["errors"]) == (20, {})
    assert sorted(server.seeds()) == list(range(100, 120))
    assert server.most_in_flight == 4
    assert 0.02 <= result["latency_median_s"] <= result["latency_p95_s"] <= result["latency_max_s"]
    assert result["images_per_s"] == pytest.approx(20 / result["elapsed_s"])
    assert server.calls[0].inputs["sr_steps"].tolist() == [[2]]


def test_bench_ends_after_its_seconds_and_prints_text(
    photo: str, server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    server.delay_s = lambda call: 0.02
    assert main(["bench", "--photo", photo, "--concurrency", "2", "--seconds", "0.2"]) == 0
    captured = capsys.readouterr()
    assert "images/s" in captured.out and "median 0.0" in captured.out and "errors: none" in captured.out
    assert 2 <= len(server.calls) <= 30


def test_bench_counts_errors_and_stops_at_those_that_would_never_end(
    photo: str, server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    good = server.answer

    def answer(call: Any) -> Any:
        if call.model == "id3pm" and int(call.inputs["seed"][0, 0]) in (1, 3):
            raise InternalServerError("the engine failed")
        return good(call)

    server.answer = answer
    assert main(["bench", "--photo", photo, "--images", "6"]) == 1
    assert "4 images in" in (out := capsys.readouterr().out) and "errors: 2 InternalServerError" in out

    def refuse(call: Any) -> Any:
        if call.model == "id3pm":
            raise InvalidRequestError("steps=0: must be between 1 and 1000")
        return good(call)

    server.answer = refuse
    assert main(["bench", "--photo", photo, "--seconds", "60"]) == 2
    assert "steps=0" in capsys.readouterr().err


def test_several_servers_and_a_token_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}

    class Remembering(Client):
        def __init__(self, url: Any, **settings: Any) -> None:
            seen.update(url=url, **settings)
            raise KeyboardInterrupt

    monkeypatch.setattr("id3pm_client._cli.Client", Remembering)
    (tmp_path / "token").write_text("secret\n")
    arguments = [
        "--url",
        "a:1",
        "--url",
        "b:1",
        "--token-file",
        str(tmp_path / "token"),
        "--root-certificates",
        "ca.pem",
    ]
    assert main([*arguments, "ping"]) == 130
    assert (seen["url"], seen["token"], seen["ssl"], seen["root_certificates"]) == (
        ["a:1", "b:1"],
        "secret",
        True,
        "ca.pem",
    )


def test_ping_of_several_servers_is_by_server(
    monkeypatch: pytest.MonkeyPatch, sync_transport: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    both = functools.partial(Client, transport=[sync_transport, sync_transport])
    monkeypatch.setattr("id3pm_client._cli.Client", both)
    assert main(["--url", "a:1", "--url", "b:1", "ping"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"a:1", "b:1"}


def test_blend_asks_for_the_people_between(
    tmp_path: Path, photo: str, server: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    people = iter([Embedding(row, np.zeros(15, np.float32), 1, "sface") for row in np.eye(4, dtype=np.float32)])
    monkeypatch.setattr(Client, "embed", lambda self, photo, face: next(people))
    out = tmp_path / "out"
    assert main(["blend", photo, photo, "--share", "0", "0.5", "--seed", "7", "--out", str(out), "--steps", "3"]) == 0
    assert capsys.readouterr().out.split() == [str(out / "000_share-0.png"), str(out / "001_share-0.5.png")]
    asked = sorted((call.inputs["embedding"][0].tolist() for call in server.calls), reverse=True)
    assert asked == [pytest.approx([1, 0, 0, 0]), pytest.approx([0.5**0.5, 0.5**0.5, 0, 0])]
    assert server.seeds() == [7, 7] and all(call.inputs["steps"].tolist() == [[3]] for call in server.calls)
    assert [call.inputs["id_vector_model"].tolist() for call in server.calls if "embedding" in call.inputs] == [
        [[b"sface"]]
    ] * 2


def test_no_file_is_replaced_unless_told_to(
    tmp_path: Path, photo: str, server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another person's picture of the same seed, say."""
    out, vector = tmp_path / "out", tmp_path / "v.npz"
    again = str(out / "again.png")
    commands = {
        "generate": ["--photo", photo, "--seed", "5-6", "--out", str(out), "--with-64"],
        "blend": [photo, photo, "--seed", "1", "--out", str(out)],
        "stream": ["--photo", photo, "--seed", "5", "--out", str(out)],
        "embed": ["--photo", photo, "--out", str(vector)],
    }
    for name, words in commands.items():
        assert main([name, *words]) == 0
        before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
        server.calls.clear()
        assert main([name, *words]) == 2
        assert " exists: give another --out, or --overwrite to replace it" in capsys.readouterr().err
        assert not server.calls, "refused before the work"
        assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before
        assert main([name, *words, "--overwrite"]) == 0
    (out / "again.png").touch()
    assert main(["replay", str(out / "000_seed-5.png"), "--photo", photo, "--out", again]) == 2
    assert "again.png exists" in capsys.readouterr().err


def test_a_photograph_with_two_faces_is_not_cut_to_one_without_a_word(
    tmp_path: Path, photo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "out")
    for words in (
        ["generate", "--photo", photo, "--out", out],
        ["stream", "--photo", photo, "--out", out],
        ["blend", photo, photo, "--out", out],
        ["embed", "--photo", photo, "--out", str(tmp_path / "v.npz")],
        ["bench", "--photo", photo, "--images", "1"],
    ):
        assert main(words) == 0
        told = capsys.readouterr().err
        assert f"{photo} shows 2 faces: the largest is used, 2 x 3 px at (0, 1); --face only" in told


def test_seeds_are_ranges_or_random_ones_that_are_told(
    tmp_path: Path, photo: str, server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["generate", "--photo", photo, "--seed", "0-2", "9", "--out", str(out)]) == 0
    assert sorted(server.seeds_of("id3pm")) == [0, 1, 2, 9]
    assert sorted(path.name for path in out.iterdir())[-1] == "003_seed-9.png"
    commands = (["generate", "--photo", photo], ["stream", "--photo", photo], ["blend", photo, photo])
    for place, words in enumerate(commands):
        server.calls.clear()
        capsys.readouterr()
        assert main([*words, "--out", str(tmp_path / f"out{place}")]) == 0
        sent = next(call.inputs["seed"][0, 0] for call in server.calls if "seed" in call.inputs)
        assert f"random seed: {sent}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seed", "3-0"], "argument --seed: seed 3-0: a range goes up"),
        (["--seed", "x"], "argument --seed: seed 'x': must be an integer, or a range such as 0-3"),
        (["--seed", "1", "--num-inference-steps", "5"], "--num-inference-steps: did you mean --steps?"),
        (["--seed", "1", "--guidance=3"], "--guidance: did you mean --guidance-scale?"),
    ],
)
def test_a_command_line_that_is_wrong_is_answered_with_what_is_right(
    photo: str, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["generate", "--photo", photo, "--out", "none", *words])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_errors_of_files_name_the_file_and_no_number(
    tmp_path: Path, photo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.touch()
    for words, message in (
        (["embed", "--photo", "none.jpg", "--out", "v.npz"], "id3pm-client: none.jpg: no such file or directory"),
        (["generate", "--embedding", "none.npz", "--out", "out"], "id3pm-client: none.npz: no such file or directory"),
        (["embed", "--photo", str(tmp_path), "--out", "v.npz"], f"id3pm-client: {tmp_path}: is a directory"),
        (["generate", "--photo", photo, "--seed", "1", "--out", str(file)], f"--out {file}: is a file"),
        (["generate", "--photo", photo, "--seed", "1", "--out", str(file / "out")], "or leads through one"),
        (["embed", "--photo", photo, "--out", str(tmp_path)], f"{tmp_path}: is a folder; give the name of a file"),
        (["--token-file", "none.txt", "ping"], "id3pm-client: none.txt: no such file or directory"),
    ):
        assert main(words) == 2
        told = capsys.readouterr().err.splitlines()[-1]
        assert message in told
        assert "Errno" not in told


def test_ping_says_ok(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ping"]) == 0
    assert "127.0.0.1:8001: ok, " in capsys.readouterr().err


def test_the_steps_of_a_long_image_are_shown(
    tmp_path: Path, photo: str, server: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("id3pm_client._bar._EVERY_S", 0.0)
    server.delay_s = lambda call: 1.0 if call.model == "id3pm" else 0.0
    assert main(["generate", "--photo", photo, "--seed", "1", "--out", str(tmp_path)]) == 0
    told = capsys.readouterr().err
    assert "0/4 steps of denoiser_64" in told
    assert told.rstrip().endswith("1/1 images")
    assert main(["generate", "--photo", photo, "--seed", "2", "3", "--out", str(tmp_path)]) == 0
    assert "0/2 images; image 0 at step 0/4 of denoiser_64" in capsys.readouterr().err
