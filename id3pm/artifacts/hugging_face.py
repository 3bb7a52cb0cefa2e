"""Bundles and engine sets on the Hugging Face Hub. The token is that of `HF_TOKEN` or of `hf auth login`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from id3pm import __version__
from id3pm.artifacts.address import Address
from id3pm.artifacts.contents import LIST_FILE, MAX_LIST, Contents, FileEntry, parse_contents
from id3pm.artifacts.remote import CONNECT_S, SILENCE_S, bounded
from id3pm.errors import MissingExtraError, TransferError
from id3pm.installation import how_to_install

try:
    import httpx2
    import huggingface_hub
    from huggingface_hub import utils
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
except ImportError as error:
    raise MissingExtraError(
        f"hf:// needs {error.name}, which is not installed; run: {how_to_install('hub')}"
    ) from error

_MAIN = "main"


class HuggingFace:
    """One repository of models on the hub (`HF_ENDPOINT`)."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._endpoint = os.environ.get("HF_ENDPOINT")
        self._api = huggingface_hub.HfApi(self._endpoint, library_name="id3pm", library_version=__version__)

    def contents(self) -> Contents:
        """See `Remote.contents`."""
        with self._reading(LIST_FILE, {}) as response:
            return parse_contents(bounded(response.iter_bytes(), MAX_LIST, LIST_FILE))

    @contextlib.contextmanager
    def open(self, path: str, entry: FileEntry, start: int) -> Iterator[tuple[int, Iterator[bytes]]]:
        """See `Remote.open`."""
        with self._reading(path, {"Range": f"bytes={start}-"} if start else {}) as response:
            yield start if response.status_code == 206 else 0, response.iter_bytes()

    def resolve(self) -> Address:
        """See `Remote.resolve`."""
        with self._told():
            sha = self._api.model_info(self._address.name, revision=self._address.version or _MAIN, timeout=30).sha
        found = self._address.pinned(str(sha))
        if not found.is_pinned:
            raise TransferError(f"{self._address}: the hub names no commit, but {str(sha)[:80]!r}")
        return found

    def push(
        self, contents: Contents, files: Mapping[str, Path], create: bool, report: Callable[[str], None]
    ) -> Address:
        """See `Remote.push`."""
        name, add = self._address.name, huggingface_hub.CommitOperationAdd
        with self._told():
            if create:
                self._api.create_repo(name, private=True, exist_ok=True)
            operations: list[Any] = [add(LIST_FILE, contents.to_bytes())]
            for path, file in files.items():
                report(f"{path}, {contents.files[path].size} bytes")
                operations.append(add(path, str(file)))
            made = self._api.create_commit(
                name,
                operations,
                commit_message=f"{contents.kind} written by id3pm {__version__}",
                revision=self._address.version or _MAIN,
            )
        return self._address.pinned(made.oid)

    @contextlib.contextmanager
    def _reading(self, path: str, headers: Mapping[str, str]) -> Iterator[Any]:
        """A file as a stream. Redirects are followed; the token stays with the hub."""
        address = self._address
        url = huggingface_hub.hf_hub_url(address.name, path, revision=address.version, endpoint=self._endpoint)
        sent = utils.build_hf_headers(library_name="id3pm", library_version=__version__)
        limits = httpx2.Timeout(SILENCE_S, connect=CONNECT_S)
        stream = utils.http_stream_backoff(
            "GET",
            url,
            headers={**sent, **headers, "Accept-Encoding": "identity"},
            timeout=limits,
            max_retries=0,  # its repetitions would begin the file anew; `download` repeats, and resumes
        )
        with self._told(path), stream as response:
            utils.hf_raise_for_status(response)
            commits = {each.headers.get("x-repo-commit", address.version) for each in (*response.history, response)}
            if commits != {address.version}:
                raise TransferError(f"{address}: the hub sent {path} of another commit")
            yield response

    @contextlib.contextmanager
    def _told(self, path: str = "") -> Iterator[None]:
        """Errors of the hub, and of the way there, as ours."""
        what = f"{self._address}{f': {path}' if path else ''}"
        try:
            yield
        except (HfHubHTTPError, OfflineModeIsEnabled) as error:
            if isinstance(error, HfHubHTTPError) and error.response.status_code >= 500:
                raise ConnectionError(f"{what}: the hub answered {error.response.status_code}") from error
            raise TransferError(f"{what}: {' '.join(str(error).split())[:500]}") from error
        except httpx2.HTTPError as error:
            raise ConnectionError(f"{what}: {type(error).__name__}: {str(error)[:300]}") from error
        except ValueError as error:  # what the library says of names and revisions
            raise TransferError(f"{what}: {str(error)[:500]}") from error
