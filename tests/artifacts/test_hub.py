"""Bundles on the hub: pushed, pulled, and pulled from a hub that misbehaves."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from fake_hub import FakeHub, Storage, send, send_file
from pulling import bytes_of, pulled

from id3pm.artifacts import download
from id3pm.artifacts.address import Address, parse_address
from id3pm.artifacts.contents import LIST_FILE
from id3pm.artifacts.pull import remote_at
from id3pm.artifacts.push import push
from id3pm.errors import TransferError
from id3pm.export.engine_folder import bundle_reference
from id3pm.formats.bundle import read_bundle
from id3pm.formats.model_card import CARD_FILE, card_for_hub
from id3pm.formats.source import SOURCE_FILE

WEIGHTS = "base.safetensors"


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSE_S", 0.0)


@pytest.fixture
def pushed(hub: FakeHub, bundle: Path) -> Address:
    address = push(bundle, parse_address("hf://lab/faces"), create=True, report=lambda line: None)
    hub.requests.clear()
    return address


def test_a_bundle_comes_back_as_it_was(hub: FakeHub, pushed: Address, bundle: Path, tmp_path: Path) -> None:
    assert pushed.is_pinned and "lab/faces" in hub.repositories
    assert hub.files[pushed.version]["README.md"].decode() == card_for_hub(bundle)
    assert card_for_hub(bundle).startswith("---\nlicense: mit\n")
    assert pulled(pushed, tmp_path / "new")
    found = bytes_of(tmp_path / "new")
    assert found.pop(CARD_FILE).decode() == card_for_hub(bundle)
    assert json.loads(found.pop(SOURCE_FILE))["address"] == str(pushed)
    assert found == bytes_of(bundle)
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith((".partial", "-of"))] == []


def test_the_address_goes_into_engines_built_from_it_until_the_bundle_is_changed(
    pushed: Address, tmp_path: Path
) -> None:
    pulled(pushed, tmp_path / "new")
    bundle = read_bundle(tmp_path / "new")
    reference = bundle_reference(tmp_path / "new", bundle, "base")
    assert reference.source == str(pushed)
    text = (tmp_path / "new" / "bundle.json").read_text()
    (tmp_path / "new" / "bundle.json").write_text(text.replace('"tiny"', '"other"'))
    assert bundle_reference(tmp_path / "new", bundle, "base").source is None


def test_a_branch_is_resolved_but_not_pulled(hub: FakeHub, pushed: Address, tmp_path: Path) -> None:
    assert remote_at(parse_address("hf://lab/faces@main")).resolve() == pushed
    with pytest.raises(TransferError, match="'main' may be other files tomorrow"):
        pulled("hf://lab/faces@main", tmp_path / "new")
    with pytest.raises(TransferError):
        remote_at(parse_address("hf://lab/faces@nowhere")).resolve()


def test_what_is_there_is_not_pulled_again_but_checked(hub: FakeHub, pushed: Address, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    assert pulled(pushed, folder), "an empty folder is taken"
    hub.requests.clear()
    assert not pulled(pushed, folder)
    assert hub.requests == []
    (folder / WEIGHTS).write_bytes(b"x")
    with pytest.raises(TransferError, match=rf"{WEIGHTS} is not the file of hf://lab/faces@.*delete"):
        pulled(pushed, folder)


def test_a_folder_with_something_else_is_left_alone(pushed: Address, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    with pytest.raises(TransferError, match="exists already"):
        pulled(pushed, tmp_path)
    assert (tmp_path / "mine").read_text() == "x"


def test_a_broken_transfer_goes_on_where_it_ended(hub: FakeHub, pushed: Address, bundle: Path, tmp_path: Path) -> None:
    size = (bundle / WEIGHTS).stat().st_size
    ranges = []

    def breaking(handler: Any, path: str, data: bytes, headers: dict[str, str]) -> bool:
        if path != WEIGHTS:
            return False
        ranges.append(headers.get("range"))
        send_file(handler, data, headers, stop_after=size // 3)
        return True

    hub.on_file = breaking
    pulled(pushed, tmp_path / "new")
    assert ranges[0] is None and all(ranges[1:]) and len(ranges) >= 3
    assert (tmp_path / "new" / WEIGHTS).read_bytes() == (bundle / WEIGHTS).read_bytes()


def test_an_interrupted_pull_is_used_by_the_next(hub: FakeHub, pushed: Address, bundle: Path, tmp_path: Path) -> None:
    def refusing(handler: Any, path: str, data: bytes, headers: dict[str, str]) -> bool:
        if path == WEIGHTS:
            send(handler, 403)
        return path == WEIGHTS

    hub.on_file = refusing
    with pytest.raises(TransferError, match=WEIGHTS):
        pulled(pushed, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    hub.on_file = lambda *_: False
    hub.requests.clear()
    pulled(pushed, tmp_path / "new")
    files = [path.rpartition("/")[2] for _, path, _ in hub.requests]
    assert "bundle.json" not in files and WEIGHTS in files
    assert bytes_of(tmp_path / "new")[WEIGHTS] == (bundle / WEIGHTS).read_bytes()


def changed(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize("path", [WEIGHTS, "bundle.json", "README.md"])
def test_a_file_that_was_changed_is_refused_by_name(hub: FakeHub, pushed: Address, tmp_path: Path, path: str) -> None:
    files = hub.files[pushed.version]
    files[path] = changed(files[path])
    with pytest.raises(TransferError, match=rf"{path}: its sha256 is .*changed on the way"):
        pulled(pushed, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_weights_that_bundle_json_does_not_record_are_refused(hub: FakeHub, pushed: Address, tmp_path: Path) -> None:
    """A hub that changes file and list alike."""
    import hashlib

    files = hub.files[pushed.version]
    files[WEIGHTS] = changed(files[WEIGHTS])
    document = json.loads(files[LIST_FILE])
    document["files"][WEIGHTS]["sha256"] = hashlib.sha256(files[WEIGHTS]).hexdigest()
    files[LIST_FILE] = json.dumps(document).encode()
    with pytest.raises(TransferError, match=r"base\.safetensors is not the file that bundle\.json records"):
        pulled(pushed, tmp_path / "new")


def endless(handler: Any, path: str, data: bytes, headers: dict[str, str]) -> bool:
    if path != WEIGHTS:
        return False
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    block = b"10000\r\n" + b"\0" * 65536 + b"\r\n"
    while True:
        handler.wfile.write(block)


def test_a_file_without_an_end_is_refused(hub: FakeHub, pushed: Address, tmp_path: Path) -> None:
    hub.on_file = endless
    with pytest.raises(TransferError, match=rf"{WEIGHTS}: more than the \d+ bytes of the list came"):
        pulled(pushed, tmp_path / "new")


def test_a_list_without_an_end_is_refused(hub: FakeHub, pushed: Address, tmp_path: Path) -> None:
    hub.files[pushed.version][LIST_FILE] = b" " * 2**20
    with pytest.raises(TransferError, match="more than 262144 bytes"):
        pulled(pushed, tmp_path / "new")


def test_a_sender_of_single_bytes_is_given_up(
    hub: FakeHub, pushed: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(handler: Any, path: str, data: bytes, headers: dict[str, str]) -> bool:
        if path != WEIGHTS:
            return False
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        for at in range(len(data)):
            handler.wfile.write(data[at : at + 1])
            time.sleep(0.02)
        return True

    monkeypatch.setattr(download, "SILENCE_S", 0.2)
    hub.on_file = slow
    with pytest.raises(TransferError, match="less than 16384 bytes a second"):
        pulled(pushed, tmp_path / "new")


def test_another_commit_than_the_address_names_is_refused(hub: FakeHub, pushed: Address, tmp_path: Path) -> None:
    hub.sent_commit = "f" * 40
    with pytest.raises(TransferError, match="of another commit"):
        pulled(pushed, tmp_path / "new")


def test_the_token_stays_with_the_hub(hub: FakeHub, pushed: Address, bundle: Path, tmp_path: Path) -> None:
    storage = Storage({WEIGHTS: (bundle / WEIGHTS).read_bytes()})

    def elsewhere(handler: Any, path: str, data: bytes, headers: dict[str, str]) -> bool:
        if path == WEIGHTS:
            send(handler, 302, Location=f"{storage.url.replace('127.0.0.1', 'localhost')}/{WEIGHTS}")
        return path == WEIGHTS

    hub.on_file = elsewhere
    pulled(pushed, tmp_path / "new")
    storage.close()
    assert {headers.get("authorization") for _, _, headers in hub.requests} == {"Bearer hf_secret"}
    assert [headers.get("authorization") for _, _, headers in storage.requests] == [None]


def test_a_missing_list_says_so(hub: FakeHub, pushed: Address, tmp_path: Path) -> None:
    del hub.files[pushed.version][LIST_FILE]
    with pytest.raises(TransferError, match=LIST_FILE):
        pulled(pushed, tmp_path / "new")


def test_no_link_in_a_temporary_folder_is_followed(hub: FakeHub, pushed: Address, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine")
    partial = tmp_path / ".new.partial"
    partial.mkdir()
    (tmp_path / ".new.partial-of").write_text(str(pushed))
    (partial / WEIGHTS).symlink_to(target)
    with pytest.raises((TransferError, OSError)):
        pulled(pushed, tmp_path / "new")
    assert target.read_text() == "mine"


def test_what_is_pinned_is_not_pushed_to(bundle: Path) -> None:
    with pytest.raises(TransferError, match="is pinned: push to a branch"):
        push(bundle, parse_address("hf://lab/faces@" + "a" * 40), create=False, report=lambda line: None)


def test_a_damaged_bundle_is_not_pushed(hub: FakeHub, bundle: Path, tmp_path: Path) -> None:
    from id3pm.errors import BundleError

    for name, data in bytes_of(bundle).items():
        (tmp_path / name).write_bytes(changed(data) if name == WEIGHTS else data)
    with pytest.raises(BundleError, match="is damaged"):
        push(tmp_path, parse_address("hf://lab/faces"), create=False, report=lambda line: None)
    assert hub.requests == []


def test_a_folder_that_is_neither_is_not_pushed(tmp_path: Path) -> None:
    with pytest.raises(TransferError, match="is neither a bundle"):
        push(tmp_path, parse_address("hf://lab/faces"), create=False, report=lambda line: None)
