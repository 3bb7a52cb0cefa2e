"""Pictures in parquet tables, numbered, readable at random."""

from __future__ import annotations

import bisect
import functools
import itertools
from pathlib import Path
from typing import Any

from id3pm.errors import ImageError, InvalidInputError, MissingExtraError
from id3pm.installation import how_to_install

IMAGE_COLUMNS = ("image", "img", "jpg", "png", "webp", "bytes")


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
        """See `id3pm.training.sources.Source.__len__`."""
        return self._starts[-1]

    def name(self, index: int) -> str:
        """See `id3pm.training.sources.Source.name`."""
        value = self._value(index)
        path = value.get("path") if isinstance(value, dict) else None
        table = self._groups[self._place(index)[0]][0]
        return f"{self._names[table]}:{path or index}"

    def read(self, index: int) -> bytes:
        """See `id3pm.training.sources.Source.read`."""
        value = self._value(index)
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            raise ImageError(f"column {self._column!r} has no picture in this row")
        return data

    def metadata(self, index: int) -> bytes | None:
        """See `id3pm.training.sources.Source.metadata`: tables have none."""
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
