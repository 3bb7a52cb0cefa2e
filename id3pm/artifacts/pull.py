"""Pulls a bundle or an engine set into a folder, or into the cache, from which commands then take it.

A folder appears whole or not at all: files are collected under a temporary name beside it, each is checked, and the
folder is renamed at the end. What an interrupted pull has collected is used by the next one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from id3pm.artifacts.address import Address, parse_address
from id3pm.artifacts.contents import Contents, Kind
from id3pm.artifacts.download import OnBytes, download, local_name, repeated, verify_files
from id3pm.artifacts.remote import Remote
from id3pm.artifacts.requirements import bundle_of, check_machine, engine_files, requirements, stage_manifests
from id3pm.errors import Id3pmError, TransferError
from id3pm.export.repository import write_repository
from id3pm.formats.bundle import CONFIG_FILE, HASHES_KEY, STAGES, read_bundle, weights_file
from id3pm.formats.json_files import parse_json
from id3pm.formats.source import SOURCE_FILE, read_source, write_source

CACHE_VARIABLE = "ID3PM_CACHE"
WAIT_S = 1800.0
"""Seconds to wait for another process that pulls into the same folder."""
PAUSE_S = 0.2
SPARE = 64 * 2**20
OnTotal = Callable[[int], OnBytes]
"""Called with the bytes of all files; what it returns is called with the bytes of each part."""


def remote_at(address: Address) -> Remote:
    """The hub or the registry of an address.

    Raises:
        MissingExtraError: Its library is not installed.
    """
    if address.scheme == "hf":
        from id3pm.artifacts.hugging_face import HuggingFace

        return HuggingFace(address)
    from id3pm.artifacts.oci_registry import OciRegistry

    return OciRegistry(address)


def pull(address: Address, folder: Path, on_total: OnTotal, kind: Kind | None = None) -> bool:
    """Pulls an artifact into a folder that does not exist, is empty, or holds just this artifact already.

    Args:
        address: Pinned.
        folder: Of the bundle, or of the model repository.
        on_total: For progress.
        kind: What is wanted, or `None` for either.

    Returns:
        Whether anything had to be pulled.

    Raises:
        TransferError: The address is not pinned, the folder holds something else, a file is not what was recorded, or
            engines do not fit this machine.
        OSError: The connection broke, or the folder cannot be written.
    """
    address.require_pinned()
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        if _is_there(address, folder):
            found: Kind = "bundle" if (folder / CONFIG_FILE).is_file() else "engines"
            _require(kind, found, address)
            if found == "engines":
                check_machine(requirements(folder))
                _write_models(folder)
            return False
        remote = remote_at(address)
        contents = repeated(remote.contents)
        _require(kind, contents.kind, address)
        if contents.kind == "engines":
            check_machine(contents.about)
        _collect(remote, contents, address, folder, on_total)
    return True


def local_folder(text: str, kind: Kind, on_total: OnTotal) -> Path:
    """The folder of an address in the cache; pulled if it is not there.

    Raises:
        TransferError: See `pull`.
        OSError: See `pull`.
    """
    address = parse_address(text)
    address.require_pinned()
    folder = cache_folder(address)
    pull(address, folder, on_total, kind)
    return folder


def cache_folder(address: Address) -> Path:
    """Where the cache has, or will have, an artifact: below `ID3PM_CACHE`, else below the user's cache folder."""
    root = os.environ.get(CACHE_VARIABLE)
    base = Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "id3pm"
    registry = address.registry.replace(":", "_").strip("[]")
    return base / address.scheme / registry / address.name / address.version.replace(":", "-")


def _require(wanted: Kind | None, found: Kind, address: Address) -> None:
    if wanted is not None and wanted != found:
        names = {"bundle": "a bundle", "engines": "an engine set"}
        raise TransferError(f"{address} is {names[found]}, needed here is {names[wanted]}")


def _is_there(address: Address, folder: Path) -> bool:
    """Whether a folder holds this artifact, each file of it checked; false if it is empty or missing.

    Raises:
        TransferError: It holds something else, or a file that has been changed.
    """
    if not folder.exists():
        return False
    record = read_source(folder) if folder.is_dir() else None
    if record is None:
        if folder.is_dir() and not any(folder.iterdir()):
            return False
        raise TransferError(f"{folder} exists already: name a folder that does not, or an empty one")
    if record[0] != str(address):
        raise TransferError(f"{folder} holds {record[0]}: name another folder for {address}")
    verify_files(folder, record[1], record[0])
    return True


def _collect(remote: Remote, contents: Contents, address: Address, folder: Path, on_total: OnTotal) -> None:
    partial = _partial(folder)
    if not _belongs(partial, address):
        shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(exist_ok=True)
    (partial / SOURCE_FILE).unlink(missing_ok=True)
    _mark(partial).write_text(str(address), encoding="utf-8")
    room = shutil.disk_usage(partial).free
    there = sum(file.stat().st_size for file in partial.rglob("*") if file.is_file())
    if contents.size - there + SPARE > room:
        raise TransferError(f"{address} has {contents.size} bytes: {folder.parent} has room for {room}")
    download(remote, contents, partial, on_total(contents.size))
    _check(contents, partial)
    files = {local_name(path): entry.sha256 for path, entry in contents.files.items()}
    _remove_others(partial, files)
    if contents.kind == "engines":
        _write_models(partial)
    write_source(partial, str(address), files)
    if folder.exists():
        folder.rmdir()
    partial.rename(folder)
    _mark(partial).unlink(missing_ok=True)


def _check(contents: Contents, folder: Path) -> None:
    """Whether the files are together what the list says, and name each other's hashes.

    Raises:
        TransferError: They do not fit.
    """
    try:
        if contents.kind == "bundle":
            _check_bundle(contents, folder)
        else:
            _check_engines(contents, folder)
    except TransferError:
        raise
    except Id3pmError as error:
        raise TransferError(f"this is no valid {contents.kind}: {error}") from error


def _check_bundle(contents: Contents, folder: Path) -> None:
    read_bundle(folder)
    recorded = parse_json((folder / CONFIG_FILE).read_bytes(), CONFIG_FILE)[HASHES_KEY]
    for stage in STAGES:
        if contents.files[weights_file(stage)].sha256 != recorded[stage]:
            raise TransferError(f"{weights_file(stage)} is not the file that {CONFIG_FILE} records")


def _check_engines(contents: Contents, folder: Path) -> None:
    if (named := engine_files(folder)) != sorted(contents.files):
        others = sorted(set(named) ^ set(contents.files))
        raise TransferError(f"the manifests of the engines name other files than the list: {', '.join(others)[:500]}")
    if (found := requirements(folder)) != contents.about:
        raise TransferError(f"the tags are not those of the engines' manifests: {found}")
    source = bundle_of(folder).source
    if source is not None:
        parse_address(source).require_pinned()


def _write_models(repository: Path) -> None:
    """Makes a folder of engines a model repository: configurations and programs are this package's own."""
    manifests = stage_manifests(repository)
    sizes: dict[str, int] = {manifest.stage: manifest.unet.image_size for manifest in manifests.values()}
    write_repository(repository, sizes)


def _remove_others(folder: Path, files: dict[str, str]) -> None:
    for file in list(folder.rglob("*")):
        if not file.is_dir() and file.relative_to(folder).as_posix() not in files:
            file.unlink()


def _partial(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.partial")


def _mark(partial: Path) -> Path:
    """The file that says which address a temporary folder belongs to."""
    return partial.with_name(f"{partial.name}-of")


def _belongs(partial: Path, address: Address) -> bool:
    try:
        return not partial.is_symlink() and _mark(partial).read_text(encoding="utf-8") == str(address)
    except OSError:
        return False


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other process pulls into the folder meanwhile.

    Raises:
        TransferError: Another one has done so for `WAIT_S`.
    """
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        until = time.monotonic() + WAIT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise TransferError(f"another process has pulled into {folder} for {WAIT_S:g} s") from None
                time.sleep(PAUSE_S)
        yield
