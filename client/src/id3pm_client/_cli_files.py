"""Files and folders that commands write; existing ones are replaced only if the caller allows it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from id3pm_client._errors import InvalidRequestError


def make_folder(path: Path) -> None:
    """Makes the folder of `--out`.

    Raises:
        InvalidRequestError: There is a file of this name.
        OSError: It cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InvalidRequestError(f"--out {path}: is a file, or leads through one; give a folder") from None


def check_free(paths: Iterable[Path], overwrite: bool) -> None:
    """Checks before the work that no output file exists.

    Raises:
        InvalidRequestError: There is such a file already, perhaps of another person, or a folder.
    """
    for path in paths:
        if path.is_dir():
            raise InvalidRequestError(f"{path}: is a folder; give the name of a file")
        if path.exists() and not overwrite:
            raise InvalidRequestError(f"{path} exists: give another --out, or --overwrite to replace it")


def write(path: Path, data: bytes, overwrite: bool) -> None:
    """Writes a file.

    Raises:
        InvalidRequestError: It has come into being meanwhile.
        OSError: It cannot be written.
    """
    with contextlib.suppress(FileExistsError), open(path, "wb" if overwrite else "xb") as file:
        file.write(data)
        return
    check_free([path], overwrite=False)


def os_error_text(error: OSError) -> str:
    """An error of the operating system as one line: the file, and what is wrong with it."""
    if error.strerror is None:
        return str(error)
    reason = f"{error.strerror[:1].lower()}{error.strerror[1:]}"
    return reason if error.filename is None else f"{error.filename}: {reason}"
