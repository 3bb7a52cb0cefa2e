"""The list of an artifact's files: name, size and sha256 of each, and what the artifact is.

On the hub it is the file `id3pm-files.json`, in a registry the configuration of the OCI manifest. Names come from
closed sets, so nothing that a hub or a registry says chooses a path: no `..`, no link, no program, no pickle.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any, Literal, cast, get_args

from id3pm.errors import TransferError

Kind = Literal["bundle", "engines"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LIST_FILE = "id3pm-files.json"
CARD_ON_HUB = "README.md"
SCHEMA = 1
MAX_LIST = 256 * 2**10
MAX_FILES = 64
MAX_TEXT_FILE = 8 * 2**20
MAX_TOTAL = 64 * 2**30

ENGINE_MODELS = ("denoiser_64", "super_resolution", "face_embedding")
_BUNDLE_REQUIRED = frozenset({"bundle.json", "base.safetensors", "sr.safetensors"})
_BUNDLE_FILES = _BUNDLE_REQUIRED | {CARD_ON_HUB, "latent/pca.npz", "latent/directions.npz"}
_ENGINE_FILE = re.compile(r"(denoiser_64|super_resolution|face_embedding)/1/engine/[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_ENGINE_SUFFIXES = (".json", ".onnx", ".onnx.data", ".plan", ".safetensors")
_TEXT_SUFFIXES = (".json", ".md")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True)
class FileEntry:
    """One file.

    Attributes:
        size: Bytes.
        sha256: Hash (hex).
    """

    size: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Contents:
    """What an artifact consists of.

    Attributes:
        kind: A bundle, or the engines of a model repository.
        files: By path, with `/`.
        about: JSON; of engines what they need of a machine (`id3pm.artifacts.requirements`).
    """

    kind: Kind
    files: Mapping[str, FileEntry]
    about: Mapping[str, Any]

    def __post_init__(self) -> None:
        missing = _required(self.kind) - set(self.files)
        if missing:
            raise TransferError(f"{LIST_FILE}: this {self.kind} has no {', '.join(sorted(missing))}")
        if len(self.files) > MAX_FILES:
            raise TransferError(f"{LIST_FILE}: {len(self.files)} files: at most {MAX_FILES} are allowed")
        for path, entry in self.files.items():
            if not _is_allowed(self.kind, path):
                raise TransferError(f"{LIST_FILE}: {path[:200]!r} is no file of {_named(self.kind)}")
            if path.endswith(_TEXT_SUFFIXES) and entry.size > MAX_TEXT_FILE:
                raise TransferError(f"{path}: {entry.size} bytes: at most {MAX_TEXT_FILE} are allowed")
        if self.size > MAX_TOTAL:
            raise TransferError(f"{LIST_FILE}: {self.size} bytes in all: at most {MAX_TOTAL} are allowed")

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files.values())

    def to_bytes(self) -> bytes:
        """As JSON; the same contents always give the same bytes."""
        files = {path: dataclasses.asdict(entry) for path, entry in self.files.items()}
        document = {"schema": SCHEMA, "kind": self.kind, "files": files, "about": dict(self.about)}
        return (json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def parse_contents(data: bytes) -> Contents:
    """Reads the list of an artifact's files.

    Raises:
        TransferError: It is not one, or breaks a rule.
    """
    if len(data) > MAX_LIST:
        raise TransferError(f"{LIST_FILE}: more than {MAX_LIST} bytes")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise TransferError(f"{LIST_FILE} is not JSON: {str(error)[:200]}") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise TransferError(f"{LIST_FILE}: this version of id3pm reads schema {SCHEMA}")
    kind, files, about = document.get("kind"), document.get("files"), document.get("about")
    if kind not in KINDS or not isinstance(files, dict) or not isinstance(about, dict):
        raise TransferError(f"{LIST_FILE}: must have kind ({' or '.join(KINDS)}), files and about")
    return Contents(cast(Kind, kind), {path: _entry(path, entry) for path, entry in files.items()}, about)


def _entry(path: str, entry: object) -> FileEntry:
    if isinstance(entry, dict) and set(entry) == {"size", "sha256"}:
        size, sha256 = entry["size"], entry["sha256"]
        if type(size) is int and 0 <= size <= MAX_TOTAL and isinstance(sha256, str) and _SHA256.fullmatch(sha256):
            return FileEntry(size, sha256)
    raise TransferError(f"{LIST_FILE}: {path[:200]!r} must have size, 0 to {MAX_TOTAL} bytes, and sha256, 64 digits")


def _is_allowed(kind: Kind, path: str) -> bool:
    if kind == "bundle":
        return path in _BUNDLE_FILES
    return _ENGINE_FILE.fullmatch(path) is not None and path.endswith(_ENGINE_SUFFIXES)


def _required(kind: Kind) -> frozenset[str]:
    if kind == "bundle":
        return _BUNDLE_REQUIRED
    return frozenset(f"{model}/1/engine/manifest.json" for model in ENGINE_MODELS)


def _named(kind: Kind) -> str:
    return "a bundle" if kind == "bundle" else "an engine set"
