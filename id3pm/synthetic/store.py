"""A folder for a data set, local or in an object store through fsspec. A file appears whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol, cast

from id3pm.errors import Id3pmError, InvalidInputError, MissingExtraError, os_reason
from id3pm.installation import how_to_install

PARTIAL = ".partial"
ATOMIC = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "memory")
"""Stores in which an object is replaced as a whole: a write that is interrupted leaves no object."""
SCHEMES = (*ATOMIC, "file", "http", "https")


class StoreError(Id3pmError):
    """The store cannot be read or written; the message names the file."""


class Store(Protocol):
    """Files by name."""

    address: str

    def names(self) -> set[str]:
        """The files that are there, partial ones left out."""
        ...

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        ...

    def read(self, name: str) -> bytes:
        """The content of a file."""
        ...

    def open(self, name: str) -> BinaryIO:
        """Opens a file for reading."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Writes a file, or replaces it, as a whole."""
        ...

    def write_new(self, name: str, data: bytes) -> bool:
        """Writes a file unless there is one; whether it was written."""
        ...

    def remove(self, name: str) -> None:
        """Removes a file."""
        ...


def open_store(address: str) -> Store:
    """The folder at a path or URL; it need not exist.

    Raises:
        InvalidInputError: It is empty, or the scheme of the URL is unknown.
        MissingExtraError: fsspec, or its package for this scheme, is not installed.
    """
    if "://" in address and not address.startswith("file://"):
        return RemoteStore(address)
    path = address.removeprefix("file://")
    if not path or "\0" in path:
        raise InvalidInputError(f"{address!r}: name a folder")
    # A folder `s3:` in the current one is never meant.
    scheme, colon, _ = path.partition("/")[0].partition(":")
    if colon and scheme in SCHEMES and not Path(path).exists():
        raise InvalidInputError(f"{address!r}: a URL has two slashes, {scheme}://; for a folder of that name give ./")
    return LocalStore(Path(path))


def split(address: str) -> tuple[Store, str]:
    """The folder of a file, and the file's name.

    Raises:
        InvalidInputError: It names no file, or see `open_store`.
    """
    root = len(address) - len(address.rpartition("://")[2])  # a name in a URL begins behind its scheme
    folder, slash, name = address[root:].rpartition("/")
    if not name or (root and not slash):
        raise InvalidInputError(f"{address!r}: name a file, not a folder")
    return open_store(address[:root] + (folder or ("/" if slash else "."))), name


class LocalStore:
    """A folder on this machine, or on a file system that several machines mount."""

    def __init__(self, folder: Path) -> None:
        self.address = str(folder)
        self._folder = folder

    def names(self) -> set[str]:
        """See `Store.names`; removes partial files whose writers have ended."""
        if not self._folder.is_dir():
            return set()
        files = {file.name for file in self._folder.iterdir()}
        for name in files:
            if name.endswith(PARTIAL):
                _remove_abandoned(self._folder / name)
        return {name for name in files if not name.endswith(PARTIAL)}

    def exists(self, name: str) -> bool:
        """See `Store.exists`."""
        return (self._folder / name).exists()

    def read(self, name: str) -> bytes:
        """See `Store.read`."""
        return (self._folder / name).read_bytes()

    def open(self, name: str) -> BinaryIO:
        """See `Store.open`."""
        return (self._folder / name).open("rb")

    def write(self, name: str, data: bytes) -> None:
        """See `Store.write`."""
        with self._partial(name, data) as partial:
            os.replace(partial, self._folder / name)

    def write_new(self, name: str, data: bytes) -> bool:
        """See `Store.write_new`."""
        with self._partial(name, data) as partial:
            try:
                os.link(partial, self._folder / name)  # unlike a rename, it fails where the name is taken
            except FileExistsError:
                return False
            except OSError:  # a file system without links
                if self.exists(name):
                    return False
                os.replace(partial, self._folder / name)
        return True

    def remove(self, name: str) -> None:
        """See `Store.remove`."""
        (self._folder / name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _partial(self, name: str, data: bytes) -> Iterator[Path]:
        """A file of a temporary name with the content, on the disk; locked until it has its own name."""
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._folder / f".{name}~{secrets.token_hex(8)}{PARTIAL}"
        try:
            with partial.open("xb") as file:
                _lock(file)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                yield partial
        finally:
            partial.unlink(missing_ok=True)


def _lock(file: BinaryIO) -> bool:
    """Locks a file until it is closed, also by the end of the process; whether that was possible."""
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another process has the lock, or the file system has none
        return False
    return True


def _remove_abandoned(partial: Path) -> None:
    """Removes a partial file unless its writer holds the lock."""
    with contextlib.suppress(FileNotFoundError), partial.open("rb") as file:
        if _lock(file):
            partial.unlink()


class RemoteStore:
    """A folder of any fsspec file system."""

    def __init__(self, url: str) -> None:
        try:
            import fsspec
        except ImportError as error:
            raise MissingExtraError(f"{url}: needs fsspec: {how_to_install('dataset')}") from error
        self.address = url.rstrip("/")
        if self.address.endswith(":"):
            raise InvalidInputError(f"{url!r}: name a bucket or a folder behind ://")
        try:
            self._fs, self._folder = cast("tuple[Any, str]", fsspec.core.url_to_fs(self.address))
        except ImportError as error:  # its text names the package
            raise MissingExtraError(f"{url}: {error}") from error
        except ValueError as error:
            raise InvalidInputError(f"{url}: {error}") from error

    def names(self) -> set[str]:
        """See `Store.names`."""
        with self._named(""):
            self._fs.invalidate_cache()
            try:
                listed = self._fs.ls(self._folder, detail=False)
            except FileNotFoundError:
                return set()
        return {found.rsplit("/", 1)[-1] for found in listed if not found.endswith(PARTIAL)}

    def exists(self, name: str) -> bool:
        """See `Store.exists`."""
        with self._named(name):
            self._fs.invalidate_cache()
            return bool(self._fs.exists(self._path(name)))

    def read(self, name: str) -> bytes:
        """See `Store.read`."""
        with self._named(name):
            return bytes(self._fs.cat_file(self._path(name)))

    def open(self, name: str) -> BinaryIO:
        """See `Store.open`."""
        with self._named(name):
            return cast(BinaryIO, self._fs.open(self._path(name), "rb"))

    def write(self, name: str, data: bytes) -> None:
        """See `Store.write`."""
        with self._named(name):
            if _protocol(self._fs) in ATOMIC:  # without folders; `makedirs` would make a bucket of a misspelt name
                self._fs.pipe_file(self._path(name), data)
                return
            self._fs.makedirs(self._folder, exist_ok=True)
            partial = self._path(f".{name}~{secrets.token_hex(8)}{PARTIAL}")
            self._fs.pipe_file(partial, data)
            self._fs.mv(partial, self._path(name))

    def write_new(self, name: str, data: bytes) -> bool:
        """See `Store.write_new`; between two processes at the very same moment the later one wins."""
        if self.exists(name):
            return False
        self.write(name, data)
        return True

    def remove(self, name: str) -> None:
        """See `Store.remove`."""
        with self._named(name):
            self._fs.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._folder.rstrip('/')}/{name}"

    @contextlib.contextmanager
    def _named(self, name: str) -> Iterator[None]:
        """Errors of the store's library, which has its own classes, name the file."""
        try:
            yield
        except OSError as error:
            raise StoreError(f"{self.address}/{name}: {os_reason(error)}") from error
        except Id3pmError:
            raise
        except Exception as error:
            raise StoreError(f"{self.address}/{name}: {type(error).__name__}: {error}") from error


def _protocol(fs: Any) -> str:
    return str(fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0])
