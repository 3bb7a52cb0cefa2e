"""Bundles and engine sets in an OCI registry. Access is that of Docker's configuration (`docker login`).

The manifest names every file by its digest, and the address names the manifest by its own: nothing that a registry
sends is trusted. Registries on this machine may do without TLS, as with Docker; for all others http is refused
everywhere, also in redirects and for the tokens' server.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from id3pm.artifacts.address import Address
from id3pm.artifacts.contents import MAX_LIST, Contents, FileEntry, parse_contents
from id3pm.artifacts.remote import BLOCK, CONNECT_S, SILENCE_S, bounded
from id3pm.errors import MissingExtraError, TransferError
from id3pm.installation import how_to_install

try:
    import oras.provider
    import requests
    import urllib3
    from oras.auth import AuthenticationException
    from requests.adapters import BaseAdapter, HTTPAdapter
except ImportError as error:
    raise MissingExtraError(
        f"oci:// needs {error.name}, which is not installed; run: {how_to_install('hub')}"
    ) from error

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
LIST_TYPE = "application/vnd.id3pm.contents.v1+json"
FILE_TYPE = "application/octet-stream"
MAX_MANIFEST = 2**20
_TITLE = "org.opencontainers.image.title"
_CHUNKED = 64 * 2**20  # larger files are uploaded in parts: the library reads a part as a whole
_CHUNK = 16 * 2**20


class _Limited(HTTPAdapter):  # type: ignore[misc]
    """Every request has a time limit."""

    def send(self, request: Any, *args: Any, **settings: Any) -> Any:
        return super().send(request, *args, **{**settings, "timeout": (CONNECT_S, SILENCE_S)})


class _Refusing(BaseAdapter):  # type: ignore[misc]
    """No request goes out."""

    def send(self, request: Any, *args: Any, **settings: Any) -> Any:
        raise TransferError(f"{request.url[:200]}: the registry leads to an address without TLS")

    def close(self) -> None:
        """There is nothing to close."""


class _Provider(oras.provider.Registry):  # type: ignore[misc]
    """Without the library's own repetitions, which sleep for minutes: whole transfers are repeated, and resumed."""

    _request = oras.provider.Registry.do_request.__wrapped__

    def do_request(self, *args: Any, **settings: Any) -> Any:
        """One request; with a new token, if the one that it was sent with has expired, as some do after minutes."""
        had_token = getattr(self.auth, "token", None) is not None
        response = self._request(*args, **settings)
        if response.status_code == 401 and had_token:
            response.close()
            self.auth.token = None  # the library would send it again and again
            response = self._request(*args, **settings)
        return response


def _provider(address: Address, kind: str) -> _Provider:
    """Access to a registry, with time limits, and without plain http to other machines."""
    provider = _Provider(hostname=address.registry, insecure=address.is_local, auth_backend=kind)
    provider.session.trust_env = not address.is_local  # proxies are for other machines
    provider.session.mount("https://", _Limited())
    provider.session.mount("http://", _Limited() if address.is_local else _Refusing())
    return provider


class OciRegistry:
    """One repository of a registry."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._provider = _provider(address, "token")
        mark = "@" if address.is_pinned else ":"
        self._container = self._provider.get_container(
            f"{address.registry}/{address.name}{mark}{address.version or 'latest'}"
        )
        if self._wants_password():
            self._provider = _provider(address, "basic")
        configuration = os.environ.get("DOCKER_CONFIG")  # of which the library does not know
        file = Path(configuration, "config.json") if configuration else None
        self._provider.auth.load_configs(self._container, [str(file)] if file is not None and file.is_file() else None)

    def _wants_password(self) -> bool:
        """Whether the registry asks for name and password itself, in place of a token from its server of tokens."""
        with self._told():
            answer = self._provider.session.get(f"{self._provider.prefix}://{self._address.registry}/v2/")
        return bool(answer.headers.get("Www-Authenticate", "").lower().startswith("basic"))

    def contents(self) -> Contents:
        """See `Remote.contents`."""
        data = self._manifest()
        if (found := _digest(data)) != self._address.version:
            raise TransferError(f"{self._address}: the registry sent a manifest with the digest {found}")
        manifest = _object(data)
        listed, layers = manifest.get("config"), manifest.get("layers")
        if not isinstance(listed, dict) or listed.get("mediaType") != LIST_TYPE or not isinstance(layers, list):
            raise TransferError(
                f"{self._address} is no bundle and no engine set of id3pm: its config is not {LIST_TYPE}"
            )
        digest = str(listed.get("digest"))
        contents = parse_contents(self._small(digest))
        if {_blob(entry) for entry in contents.files.values()} != {_of_layer(layer) for layer in layers}:
            raise TransferError(f"{self._address}: its layers are not the files of its list")
        return contents

    @contextlib.contextmanager
    def open(self, path: str, entry: FileEntry, start: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        """See `Remote.open`."""
        with self._blob(f"sha256:{entry.sha256}", path, {"Range": f"bytes={start}-"} if start else {}) as response:
            yield start if response.status_code == 206 else 0, _blocks(response)

    def resolve(self) -> Address:
        """See `Remote.resolve`."""
        return self._address.pinned(_digest(self._manifest()))

    def push(
        self, contents: Contents, files: Mapping[str, Path], create: bool, report: Callable[[str], None]
    ) -> Address:
        """See `Remote.push`; a registry makes repositories itself."""
        listed = contents.to_bytes()
        manifest = _new_manifest(contents, listed)
        for path, file in files.items():
            entry = contents.files[path]
            report(f"{path}, {entry.size} bytes")
            layer = {"digest": f"sha256:{entry.sha256}", "size": entry.size}
            with self._told(path):
                chunked = entry.size > _CHUNKED
                answer = self._provider.upload_blob(
                    str(file), self._container, layer, do_chunked=chunked, chunk_size=_CHUNK
                )
                self._checked(answer, path)
        with self._told():
            self._upload(listed)
            url = f"{self._provider.prefix}://{self._container.manifest_url()}"
            answer = self._provider.do_request(url, "PUT", data=manifest, headers={"Content-Type": MANIFEST_TYPE})
            self._checked(answer, "manifest")
        return self._address.pinned(_digest(manifest))

    def _upload(self, data: bytes) -> None:
        """Uploads a small blob, which is no file."""
        provider, url = self._provider, f"{self._provider.prefix}://{self._container.upload_blob_url()}"
        begun = provider.do_request(url, "POST", headers={"Content-Type": FILE_TYPE})
        self._checked(begun, "upload")
        place = oras.utils.append_url_params(provider._get_location(begun, self._container), {"digest": _digest(data)})
        self._checked(provider.do_request(place, "PUT", data=data, headers={"Content-Type": FILE_TYPE}), "upload")

    def _manifest(self) -> bytes:
        """The manifest, whatever its digest."""
        url = f"{self._provider.prefix}://{self._container.manifest_url()}"
        with self._stream(url, "manifest", {"Accept": MANIFEST_TYPE}) as response:
            return bounded(_blocks(response), MAX_MANIFEST, f"{self._address}: its manifest")

    def _small(self, digest: str) -> bytes:
        """A blob of the size of a list, with this digest."""
        with self._blob(digest, "list of files", {}) as response:
            data = bounded(_blocks(response), MAX_LIST, f"{self._address}: its list of files")
        if _digest(data) != digest:
            raise TransferError(f"{self._address}: the registry sent another list of files than the manifest names")
        return data

    @contextlib.contextmanager
    def _blob(self, digest: str, what: str, headers: Mapping[str, str]) -> Iterator[Any]:
        if not (digest.startswith("sha256:") and digest[7:].isalnum()):
            raise TransferError(f"{self._address}: {digest[:80]!r} is no digest")
        url = f"{self._provider.prefix}://{self._container.get_blob_url(digest)}"
        with self._stream(url, what, headers) as response:
            yield response

    @contextlib.contextmanager
    def _stream(self, url: str, what: str, headers: Mapping[str, str]) -> Iterator[Any]:
        sent = {**headers, "Accept-Encoding": "identity"}
        with self._told(what), self._provider.do_request(url, headers=sent, stream=True) as response:
            self._checked(response, what)
            yield response

    def _checked(self, response: Any, what: str) -> None:
        if response.status_code >= 500:
            raise ConnectionError(f"{self._address}: {what}: the registry answered {response.status_code}")
        if response.status_code >= 300:
            raise TransferError(f"{self._address}: {what}: the registry answered {response.status_code}")

    @contextlib.contextmanager
    def _told(self, what: str = "") -> Iterator[None]:
        """Errors of the registry, and of the way there, as ours."""
        name = f"{self._address}{f': {what}' if what else ''}"
        try:
            yield
        except AuthenticationException as error:
            raise TransferError(f"{name}: {str(error)[:300]}; log in with docker login") from error
        except requests.exceptions.SSLError as error:
            raise TransferError(f"{name}: {str(error)[:500]}") from error
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
            raise ConnectionError(f"{name}: {type(error).__name__}: {str(error)[:300]}") from error
        except (ValueError, AttributeError) as error:  # what the library says of refused access and failed uploads
            raise TransferError(f"{name}: {str(error)[:300]}; access is that of docker login") from error


def _new_manifest(contents: Contents, listed: bytes) -> bytes:
    """The OCI manifest of an artifact. The same files always give the same bytes, and so the same digest."""
    layers = [
        {"mediaType": FILE_TYPE, "digest": _blob(entry)[0], "size": entry.size, "annotations": {_TITLE: path}}
        for path, entry in sorted(contents.files.items())
    ]
    tags = {f"io.id3pm.{model}.{key}": str(value) for model, of in contents.about.items() if isinstance(of, dict)
            for key, value in of.items()}  # fmt: skip
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": f"application/vnd.id3pm.{contents.kind}.v1",
        "config": {"mediaType": LIST_TYPE, "digest": _digest(listed), "size": len(listed)},
        "layers": layers,
        "annotations": {"io.id3pm.kind": contents.kind, **tags},
    }
    return json.dumps(manifest, sort_keys=True).encode()


def _blocks(response: Any) -> Iterator[bytes]:
    """What has arrived, as it arrives: a sender of single bytes is noticed."""
    while block := response.raw.read1(BLOCK):
        yield block


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _blob(entry: FileEntry) -> tuple[str, int]:
    return f"sha256:{entry.sha256}", entry.size


def _of_layer(layer: object) -> tuple[str, int]:
    digest, size = (layer.get("digest"), layer.get("size")) if isinstance(layer, dict) else (None, None)
    if isinstance(digest, str) and type(size) is int:
        return digest, size
    raise TransferError("a layer of the manifest has no digest and size")


def _object(data: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise TransferError(f"the manifest is not JSON: {str(error)[:200]}") from error
    if not isinstance(manifest, dict):
        raise TransferError("the manifest is no JSON object")
    return manifest
