"""Sources of pictures: a folder, webdataset tar files, or parquet tables; numbered, readable at random.

A picture's number is its position in the sorted source, so it stays the same in every run over the same files.
"""

from __future__ import annotations

import bisect
import collections
import dataclasses
import functools
import itertools
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, Protocol

from id3pm.errors import ImageError, InvalidInputError, MissingExtraError
from id3pm.installation import how_to_install

SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp"})
OTHER_SUFFIXES = frozenset({".avif", ".bmp", ".gif", ".heic", ".heif", ".jp2", ".jxl", ".ppm", ".tif", ".tiff"})
"""Pictures that cannot be read: counted and reported, not ignored."""
IMAGE_COLUMNS = ("image", "img", "jpg", "png", "webp", "bytes")


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


class ParquetSource:
    """Parquet tables with a column of encoded pictures: bytes, or Hugging Face's struct of `bytes` and `path`.

    Args:
        files: The tables, in order.
        column: The column with the pictures; `None` finds it.

    Raises:
        InvalidInputError: A file is no parquet table, or has no such column, or several and none is named.
        MissingExtraError: pyarrow is not installed.
    """

    def __init__(self, files: list[Path], column: str | None = None) -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise MissingExtraError(f"parquet tables need pyarrow: {how_to_install('parquet')}") from error
        self._tables: list[Any] = []
        self._groups: list[tuple[int, int]] = []  # (table, row group)
        counts = []
        for file in files:
            try:
                table = pq.ParquetFile(file)
            except (pa.ArrowException, OSError) as error:
                raise InvalidInputError(f"{file.name} is no parquet table, or damaged: {error}") from error
            column = _image_column(table.schema_arrow, column, file.name)
            for group in range(table.num_row_groups):
                self._groups.append((len(self._tables), group))
                counts.append(table.metadata.row_group(group).num_rows)
            self._tables.append(table)
        self._names = [file.name for file in files]
        self._column = column
        self._starts: list[int] = [0, *itertools.accumulate(counts)]
        # Rows are read in order, so only the newest row group is kept.
        self._group = functools.lru_cache(maxsize=1)(self._read_group)

    def __len__(self) -> int:
        """See `Source.__len__`."""
        return self._starts[-1]

    def name(self, index: int) -> str:
        """See `Source.name`."""
        value = self._value(index)
        path = value.get("path") if isinstance(value, dict) else None
        table = self._groups[self._place(index)[0]][0]
        return f"{self._names[table]}:{path or index}"

    def read(self, index: int) -> bytes:
        """See `Source.read`."""
        value = self._value(index)
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            raise ImageError(f"column {self._column!r} has no picture in this row")
        return data

    def metadata(self, index: int) -> bytes | None:
        """See `Source.metadata`: tables have none."""
        return None

    def _place(self, index: int) -> tuple[int, int]:
        group = bisect.bisect_right(self._starts, index) - 1
        return group, index - self._starts[group]

    def _value(self, index: int) -> Any:
        group, row = self._place(index)
        return self._group(group)[row].as_py()

    def _read_group(self, number: int) -> Any:
        table, group = self._groups[number]
        return self._tables[table].read_row_group(group, columns=[self._column])[self._column]


def _image_column(schema: Any, wanted: str | None, file: str) -> str:
    """The column that holds pictures in an Arrow schema."""
    import pyarrow as pa

    def holds_pictures(kind: Any) -> bool:
        if pa.types.is_struct(kind):
            return bool(kind.get_field_index("bytes") >= 0)
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    able: list[str] = [field.name for field in schema if holds_pictures(field.type)]
    if wanted is not None:
        if wanted not in able:
            raise InvalidInputError(
                f"{file} has no pictures in a column {wanted!r}: columns of bytes are {', '.join(able) or 'none'}"
            )
        return wanted
    named = [name for name in able if name.lower() in IMAGE_COLUMNS]
    choice = named[:1] if named else able
    if len(choice) != 1:
        raise InvalidInputError(
            f"{file} has {len(able)} columns of bytes ({', '.join(able) or 'none'}): name one with --image-column"
        )
    return choice[0]
