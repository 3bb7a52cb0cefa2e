"""Bundles and engines in a real OCI registry, and in one that lies."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_hub import HttpServer, Storage, send, send_file
from pulling import asked, bytes_of, pulled
from token_server import TokenServer

from id3pm.artifacts import download, requirements
from id3pm.artifacts.address import Address, parse_address
from id3pm.artifacts.contents import LIST_FILE
from id3pm.artifacts.pull import remote_at
from id3pm.artifacts.push import push
from id3pm.engines.manifest import read_manifest
from id3pm.errors import TransferError
from id3pm.formats.model_card import CARD_FILE
from id3pm.formats.source import SOURCE_FILE
from id3pm.pipeline import Pipeline

# bcrypt of "secret", as htpasswd writes it
USERS = "caller:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"
WEIGHTS = "base.safetensors"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSE_S", 0.0)


def pushed(folder: Path, text: str) -> Address:
    return push(folder, parse_address(text), create=False, report=lambda line: None)


def test_a_bundle_comes_back_as_it_was(registry: tuple[str, Path], bundle: Path, tmp_path: Path) -> None:
    address = pushed(bundle, f"oci://{registry[0]}/lab/faces:v1")
    assert address.is_pinned
    assert pushed(bundle, f"oci://{registry[0]}/lab/again:v2").version == address.version, "same files, same digest"
    assert remote_at(parse_address(f"oci://{registry[0]}/lab/faces:v1")).resolve() == address
    assert pulled(address, tmp_path / "new") and not pulled(address, tmp_path / "new")
    found = bytes_of(tmp_path / "new")
    assert json.loads(found.pop(SOURCE_FILE))["address"] == str(address)
    assert found.pop(CARD_FILE)
    assert found == bytes_of(bundle)
    with pytest.raises(TransferError, match="'v1' may be other files tomorrow"):
        pulled(f"oci://{registry[0]}/lab/faces:v1", tmp_path / "other")


def test_engines_come_back_as_a_model_repository(registry: tuple[str, Path], engines: Path, tmp_path: Path) -> None:
    address = pushed(engines, f"oci://{registry[0]}/lab/engines:cpu")
    pulled(address, tmp_path / "new")
    found = bytes_of(tmp_path / "new")
    sent = {name: data for name, data in bytes_of(engines).items() if "/engine/" in name}
    assert {name: data for name, data in found.items() if "/engine/" in name} == sent
    assert {name for name in found if name.endswith(("model.py", "config.pbtxt"))}, "this package's own are written"
    assert read_manifest(tmp_path / "new/denoiser_64/1/engine").source == str(address)
    assert read_manifest(engines / "denoiser_64/1/engine").source is None
    assert pushed(tmp_path / "new", f"oci://{registry[0]}/lab/copy:cpu").version == address.version
    vector = np.full(8, 8**-0.5, np.float32)
    with Pipeline.load(tmp_path / "new", threads=1) as there, Pipeline.load(engines, threads=1) as here:
        made, same = there.generate(vector, 7), here.generate(vector, 7)
    np.testing.assert_array_equal(made.images, same.images)
    for stage in ("base", "sr"):
        assert made.receipts[0]["stages"][stage].pop("sources") == {"engine": str(address)}
    assert made.receipts == same.receipts


def test_engines_for_another_machine_are_refused_before_they_come(
    registry: tuple[str, Path], engines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = pushed(engines, f"oci://{registry[0]}/lab/engines:cpu")
    monkeypatch.setattr(requirements, "installed_version", lambda module: "9.9")
    with pytest.raises(TransferError, match=r"denoiser_64 was built for onnxruntime .*, which is 9\.9 on this machine"):
        pulled(address, tmp_path / "new")
    monkeypatch.setattr(requirements, "installed_version", lambda module: None)
    with pytest.raises(TransferError, match="not installed"):
        pulled(address, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"target": "tensorrt", "runtime": "tensorrt", "device": "sm90"}, "was built for tensorrt on sm90"),
        ({"target": "tensorrt"}, "does not run on"),
        ({"target": "pickle"}, "its tags must be"),
        ({"more": "x"}, "its tags must be"),
    ],
)
def test_tags_are_compared_with_this_machine(
    engines: Path, change: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    about: dict[str, Any] = requirements.requirements(engines)
    requirements.check_machine(about)
    monkeypatch.setattr(requirements, "installed_version", lambda module: about["denoiser_64"]["version"])
    with pytest.raises(TransferError, match=words):
        requirements.check_machine({**about, "denoiser_64": {**about["denoiser_64"], **change}})
    with pytest.raises(TransferError, match="no tags"):
        requirements.check_machine({})


def test_a_layer_that_was_changed_in_the_registry_is_refused_by_name(
    start_registry: Callable[..., tuple[str, Path]], bundle: Path, tmp_path: Path
) -> None:
    host, folder = start_registry()
    address = pushed(bundle, f"oci://{host}/lab/faces:v1")
    largest = max((folder / "files").rglob("data"), key=lambda file: file.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[-1] ^= 1
    largest.write_bytes(data)
    with pytest.raises(TransferError, match=r"\.safetensors: its sha256 is .*changed on the way"):
        pulled(address, tmp_path / "new")


def test_access_is_that_of_docker_login(
    start_registry: Callable[..., tuple[str, Path]],
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / ".docker"))
    host, folder = start_registry("auth: {{htpasswd: {{realm: x, path: {folder}/users}}}}")
    (folder / "users").write_text(USERS)
    with pytest.raises(TransferError, match="docker login"):
        pushed(bundle, f"oci://{host}/lab/faces:v1")
    log_in(tmp_path / ".docker", host)
    address = pushed(bundle, f"oci://{host}/lab/faces:v1")
    assert pulled(address, tmp_path / "new")


@pytest.mark.parametrize("seconds", [300.0, 5.0], ids=["in time", "expired on the way"])
def test_tokens_come_from_the_server_that_the_registry_names(
    seconds: float,
    start_registry: Callable[..., tuple[str, Path]],
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / ".docker"))
    tokens = TokenServer(tmp_path, seconds)
    try:
        host, _ = start_registry(tokens.configuration)
        with pytest.raises(TransferError, match="docker login"):
            pushed(bundle, f"oci://{host}/lab/faces:v1")
        log_in(tmp_path / ".docker", host)
        address = pushed(bundle, f"oci://{host}/lab/faces:v1")
        before = len(tokens.scopes)
        if seconds < 10:
            slow_down(monkeypatch, seconds)
        assert pulled(address, tmp_path / "new")
        assert bytes_of(bundle).items() <= bytes_of(tmp_path / "new").items()
        asked = {frozenset(scope.removeprefix("repository:lab/faces:").split(",")) for scope in tokens.scopes}
        assert {frozenset({"pull", "push"}), frozenset({"pull"})} <= asked
        pulls = tokens.scopes[before:].count("repository:lab/faces:pull")
        assert pulls == (2 if seconds < 10 else 1), "one token for all files, and another when it has expired"
        tokens.accepts = "nobody"
        with pytest.raises(TransferError, match="docker login"):
            pulled(address, tmp_path / "other")
    finally:
        tokens.close()


def slow_down(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Before the second file of a pull, its token expires."""
    read, waits = download._read_on, iter((0.0, seconds + 1.0))

    def later(*args: Any) -> int:
        time.sleep(next(waits, 0.0))
        return read(*args)

    monkeypatch.setattr(download, "_read_on", later)


def log_in(folder: Path, host: str) -> None:
    """What `docker login` writes."""
    folder.mkdir()
    login = base64.b64encode(b"caller:secret").decode()
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": login}}}))


class LyingRegistry(HttpServer):
    """Answers with what a test put there, by the end of the path."""

    def __init__(self) -> None:
        self.manifests: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.elsewhere: str | None = None
        super().__init__()

    def answer(self, handler: Any, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        name = path.rpartition("/")[2]
        if "/manifests/" in path and name in self.manifests:
            send(handler, 200, self.manifests[name])
        elif name in self.blobs and self.elsewhere is not None:
            send(handler, 307, Location=f"{self.elsewhere}/{name}")
        elif name in self.blobs:
            send_file(handler, self.blobs[name], headers)
        else:
            send(handler, 404)


@pytest.fixture
def lying(registry: tuple[str, Path], bundle: Path) -> Any:
    """A registry that has got an honest bundle so far, and its address there."""
    server = LyingRegistry()
    address = pushed(bundle, f"oci://{registry[0]}/lab/faces:v1")
    path = f"/v2/lab/faces/manifests/{address.version}"
    server.manifests[address.version] = asked(registry[0], path, Accept=MANIFEST_TYPE)[1]
    manifest = json.loads(server.manifests[address.version])
    for layer in (manifest["config"], *manifest["layers"]):
        server.blobs[layer["digest"]] = asked(registry[0], f"/v2/lab/faces/blobs/{layer['digest']}")[1]
    yield server, parse_address(f"oci://{server.host}/lab/faces@{address.version}")
    server.close()


def with_list(server: LyingRegistry, address: Address, list_of: Callable[[dict[str, Any]], Any]) -> Address:
    """Another list of files, and a manifest with the right digest for it."""
    import hashlib

    manifest = json.loads(server.manifests[address.version])
    document = list_of(json.loads(server.blobs[manifest["config"]["digest"]]))
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    server.blobs[digest] = data
    manifest["config"] |= {"digest": digest, "size": len(data)}
    made = json.dumps(manifest).encode()
    version = f"sha256:{hashlib.sha256(made).hexdigest()}"
    server.manifests[version] = made
    return address.pinned(version)


def test_an_honest_answer_is_taken(lying: tuple[LyingRegistry, Address], tmp_path: Path) -> None:
    assert pulled(lying[1], tmp_path / "new")


def test_a_manifest_with_another_digest_is_refused(lying: tuple[LyingRegistry, Address], tmp_path: Path) -> None:
    server, address = lying
    server.manifests[address.version] += b" "
    with pytest.raises(TransferError, match="the registry sent a manifest with the digest sha256:"):
        pulled(address, tmp_path / "new")


def test_a_list_with_another_digest_is_refused(lying: tuple[LyingRegistry, Address], tmp_path: Path) -> None:
    server, address = lying
    digest = json.loads(server.manifests[address.version])["config"]["digest"]
    server.blobs[digest] = server.blobs[digest].replace(b"MIT", b"GPL")
    with pytest.raises(TransferError, match="another list of files than the manifest names"):
        pulled(address, tmp_path / "new")


def renamed(document: dict[str, Any], name: str) -> dict[str, Any]:
    return {**document, "files": {**document["files"], name: document["files"][WEIGHTS]}}


@pytest.mark.parametrize("name", ["../../outside", "/tmp/outside", "model.py", "weights.pkl"])
def test_a_name_outside_the_set_is_refused(lying: tuple[LyingRegistry, Address], tmp_path: Path, name: str) -> None:
    address = with_list(*lying, list_of=lambda document: renamed(document, name))
    with pytest.raises(TransferError, match=rf"{LIST_FILE}: '{name}' is no file of a bundle"):
        pulled(address, tmp_path / "new")


def test_a_layer_that_is_not_in_the_list_is_refused(lying: tuple[LyingRegistry, Address], tmp_path: Path) -> None:
    def larger(document: dict[str, Any]) -> dict[str, Any]:
        document["files"][WEIGHTS]["size"] = 2**40
        return document

    with pytest.raises(TransferError, match="must have size"):
        pulled(with_list(*lying, list_of=larger), tmp_path / "new")

    def other(document: dict[str, Any]) -> dict[str, Any]:
        document["files"][WEIGHTS]["size"] += 1
        return document

    with pytest.raises(TransferError, match="its layers are not the files of its list"):
        pulled(with_list(*lying, list_of=other), tmp_path / "new")


def test_a_longer_layer_is_refused(lying: tuple[LyingRegistry, Address], tmp_path: Path) -> None:
    server, address = lying
    largest = max(server.blobs, key=lambda digest: len(server.blobs[digest]))
    server.blobs[largest] += b"\0" * 2**20
    with pytest.raises(TransferError, match=r"\.safetensors: more than the \d+ bytes of the list came"):
        pulled(address, tmp_path / "new")


def test_credentials_do_not_follow_a_redirect(
    lying: tuple[LyingRegistry, Address], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, address = lying
    storage = Storage(server.blobs)
    server.elsewhere = storage.url.replace("127.0.0.1", "localhost")
    assert pulled(address, tmp_path / "new")
    storage.close()
    assert storage.requests and all("authorization" not in headers for _, _, headers in storage.requests)


def test_without_tls_nothing_is_asked_of_another_machine() -> None:
    from id3pm.artifacts.oci_registry import _provider

    provider = _provider(parse_address("oci://registry.example/lab/faces:v1"), "token")
    assert provider.prefix == "https"
    with pytest.raises(TransferError, match="leads to an address without TLS"):
        provider.session.get("http://registry.example/token")
