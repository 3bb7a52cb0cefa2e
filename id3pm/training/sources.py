"""Sources of pictures: a folder, webdataset tar files, or parquet tables; numbered, readable at random.

A picture's number is its position in the sorted source, so it stays the same in every run over the same files.
"""

from __future__ import annotations

import collections
import dataclasses
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import Protocol

from id3pm.errors import ImageError, InvalidInputError
from id3pm.training.parquet_source import ParquetSource

SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp"})
OTHER_SUFFIXES = frozenset({".avif", ".bmp", ".gif", ".heic", ".heif", ".jp2", ".jxl", ".ppm", ".tif", ".tiff"})
"""Pictures that cannot be read: counted and reported, not ignored."""


class Source(Protocol):
    """Encoded pictures, numbered from 0."""

    def __len__(self) -> int:
        """How many pictures there are."""
        ...

    def name(self, index: int) -> str:
        """Name of a picture in reports; metadata files use its `stems`."""
        ...

    def read(self, index: int) -> bytes:
        """The encoded picture.

        Raises:
            ImageError: There is none at this position.
            OSError: It cannot be read.
        """
        ...

    def metadata(self, index: int) -> bytes | None:
        """The JSON file beside the picture, if there is one."""
        ...


def open_source(path: Path, image_column: str | None = None) -> Source:
    """The pictures at a path.

    Args:
        path: A folder of pictures, of `.tar` files (webdataset) or of `.parquet` files; or one such file.
        image_column: Of parquet tables: the column with the pictures; `None` finds it by type and name.

    Raises:
        InvalidInputError: There are no pictures, or of more than one kind, or they cannot be read.
        MissingExtraError: Parquet without pyarrow.
    """
    if not path.exists():
        raise InvalidInputError(f"{path} does not exist: give a folder of pictures, or of .tar or .parquet files")
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    root = path.parent if path.is_file() else path
    by_kind = {
        "pictures": [file for file in files if _is_picture(file)],
        "tar": [file for file in files if file.suffix == ".tar"],
        "parquet": [file for file in files if file.suffix == ".parquet"],
    }
    kinds = [kind for kind, found in by_kind.items() if found]
    if len(kinds) != 1:
        found = " and ".join(f"{len(by_kind[kind])} {kind}" for kind in kinds) or "nothing of that"
        raise InvalidInputError(
            f"{path} must hold pictures ({', '.join(sorted(SUFFIXES))}), .tar files or .parquet files: it has {found}"
        )
    if image_column is not None and kinds != ["parquet"]:
        raise InvalidInputError(f"image_column={image_column!r} is for parquet tables: {path} has none")
    source: Source
    if kinds == ["pictures"]:
        source = FolderSource(root, by_kind["pictures"])
    elif kinds == ["tar"]:
        source = TarSource(by_kind["tar"])
    else:
        source = ParquetSource(by_kind["parquet"], image_column)
    if not len(source):
        raise InvalidInputError(f"{path} has no pictures in its {kinds[0]} files")
    return source


class FolderSource:
    """Picture files, with `<stem>.json` beside them where there is metadata."""

    def __init__(self, root: Path, files: list[Path]) -> None:
        self._root = root
        self._files = files

    def __len__(self) -> int:
        """See `Source.__len__`."""
        return len(self._files)

    def name(self, index: int) -> str:
        """See `Source.name`."""
        return str(self._files[index].relative_to(self._root))

    def read(self, index: int) -> bytes:
        """See `Source.read`."""
        return self._files[index].read_bytes()

    def metadata(self, index: int) -> bytes | None:
        """See `Source.metadata`."""
        picture = self._files[index]
        for stem in stems(picture.name):
            file = picture.with_name(f"{stem}.json")
            if file.is_file():
                return file.read_bytes()
        return None


Place = tuple[int, int]
"""Offset and size of a member's content, in bytes."""


@dataclasses.dataclass(frozen=True)
class _Sample:
    """A picture in a tar file; without `picture` it is a link to something that the file does not hold."""

    file: Path
    name: str
    picture: Place | None
    metadata: Place | None


class TarSource:
    """Uncompressed tar files as webdataset has them: every picture is a sample, whatever its name.

    A picture's metadata is the JSON member of its name (`x.left.json` for `x.left.png`), else of its webdataset key,
    the name up to the first dot (`x.json`). Where a name comes twice, the first picture goes with the first JSON.

    Raises:
        InvalidInputError: A file is no tar file, or cut off.
    """

    def __init__(self, files: list[Path]) -> None:
        self._samples = [sample for file in files for sample in _index_tar(file)]

    def __len__(self) -> int:
        """See `Source.__len__`."""
        return len(self._samples)

    def name(self, index: int) -> str:
        """See `Source.name`."""
        sample = self._samples[index]
        return f"{sample.file.name}:{sample.name}"

    def read(self, index: int) -> bytes:
        """See `Source.read`."""
        sample = self._samples[index]
        if sample.picture is None:
            raise ImageError("a link to a file that is not in the tar file")
        return _read_range(sample.file, sample.picture)

    def metadata(self, index: int) -> bytes | None:
        """See `Source.metadata`."""
        sample = self._samples[index]
        return None if sample.metadata is None else _read_range(sample.file, sample.metadata)


def _index_tar(file: Path) -> list[_Sample]:
    """The pictures of a tar file, in its order."""
    pictures: list[tuple[PurePosixPath, Place | None, PurePosixPath]] = []
    texts: dict[PurePosixPath, list[Place]] = {}
    places: dict[PurePosixPath, Place] = {}
    try:
        with tarfile.open(file, "r:") as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                place = (member.offset_data, member.size) if member.isfile() else None
                if place is not None:
                    places[path] = place
                if _is_picture(path) and (member.isfile() or member.islnk() or member.issym()):
                    target = PurePosixPath(member.linkname) if member.islnk() else path.parent / member.linkname
                    pictures.append((path, place, target))
                elif path.suffix.lower() == ".json" and place is not None:
                    texts.setdefault(path, []).append(place)
    except tarfile.TarError as error:
        raise InvalidInputError(f"{file.name} is no uncompressed tar file, or damaged: {error}") from error
    seen: collections.Counter[PurePosixPath] = collections.Counter()
    samples = []
    for name, place, target in pictures:
        metadata = _metadata(name, texts, seen[name])
        samples.append(_Sample(file, str(name), place or places.get(target), metadata))
        seen[name] += 1
    return samples


def _metadata(path: PurePosixPath, texts: Mapping[PurePosixPath, Sequence[Place]], occurrence: int) -> Place | None:
    """The JSON of a picture: by its whole stem, else by its webdataset key; the n-th of a name that comes again."""
    for stem in stems(path.name):
        found = texts.get(path.parent / f"{stem}.json", ())
        if found:
            return found[occurrence] if occurrence < len(found) else None
    return None


def stems(name: str) -> tuple[str, ...]:
    """Possible names of files beside a picture: its name without the ending, and its webdataset key.

    `IMG.2023.01.png` -> `IMG.2023.01`, `IMG`; `00042.png` -> `00042`.
    """
    return tuple(dict.fromkeys((PurePosixPath(name).stem, name.split(".", 1)[0] or name)))


def _is_picture(path: PurePath) -> bool:
    return path.suffix.lower() in SUFFIXES | OTHER_SUFFIXES


def _read_range(file: Path, place: tuple[int, int]) -> bytes:
    offset, size = place
    with file.open("rb") as opened:
        opened.seek(offset)
        return opened.read(size)
