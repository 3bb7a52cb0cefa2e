"""Other layouts of a data set: insightface's RecordIO, and folders that Hugging Face `datasets` reads."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from id3pm.errors import InvalidInputError
from id3pm.face.align import CROP_SIZE, align_face
from id3pm.formats.photo_decoding import decode_photo
from id3pm.synthetic.maker import plan_of, read_description
from id3pm.synthetic.plan_header import PlanHeader
from id3pm.synthetic.recordio import RecordWriter
from id3pm.synthetic.shard_files import KEPT, encode_picture, kept_name, numbers_of, read_table, read_tar, tar_name
from id3pm.synthetic.store import Store

COLUMNS = ("identity", "seed", "attempt", "guidance_scale", *("similarity", "other_similarity", "second_similarity"))
"""Numbers of a picture that the Hugging Face layouts carry."""


class _Picture(NamedTuple):
    label: int  # of the identity: 0 .. classes - 1, without gaps
    row: dict[str, Any]
    name: str
    data: bytes


class _Dataset:
    """The pictures of a data set, identity by identity."""

    def __init__(self, store: Store) -> None:
        read_description(store)
        self.header: PlanHeader = plan_of(store).header
        self._store = store
        self.shards = sorted(numbers_of(store.names()))
        missing = self.header.shards - len(self.shards)
        if missing:
            raise InvalidInputError(f"{missing} of {self.header.shards} shards are missing: finish the run first")
        identities: list[int] = []
        for number in self.shards:
            identities += self._table(number).column("identity").to_pylist()
        self.count = len(identities)
        if not self.count:
            raise InvalidInputError("the data set has no picture: all were rejected")
        self.labels = {identity: label for label, identity in enumerate(sorted(set(identities)))}

    def _table(self, number: int) -> pa.Table:
        return read_table(self._store, kept_name(number), KEPT)

    def shard(self, number: int) -> Iterator[_Picture]:
        pictures = read_tar(self._store, tar_name(number))
        for row in self._table(number).to_pylist():
            name = f"{row['key']}.{self.header.image_format}"
            if name not in pictures:
                raise InvalidInputError(f"{tar_name(number)} lacks {name}: run id3pm dataset check")
            yield _Picture(self.labels[row["identity"]], row, name, pictures[name])

    def __iter__(self) -> Iterator[_Picture]:
        for number in self.shards:
            yield from self.shard(number)


def export_dataset(store: Store, out: Path, layout: str) -> str:
    """Writes a complete data set in another layout; the folder appears whole or not at all.

    Args:
        store: The data set's folder.
        out: New or empty folder.
        layout: A key of `FORMATS`.

    Returns:
        What was written, for people.

    Raises:
        InvalidInputError: The data set is not complete or damaged, or the folder is not empty.
        Id3pmError: It cannot be read.
        OSError: The folder cannot be written.
    """
    if out.exists() and any(out.iterdir()):
        raise InvalidInputError(f"{out} is not empty: choose a new folder")
    data = _Dataset(store)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        FORMATS[layout](data, partial)
        if out.exists():
            out.rmdir()
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return f"{out}: {data.count} images of {len(data.labels)} identities"


def _recordio(data: _Dataset, folder: Path) -> None:
    """Faces of 112 x 112 px on the five-point template of ArcFace."""
    end = data.count + 1
    writer = RecordWriter(folder)
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    try:
        writer.add(0, (end, end + len(data.labels)))
        for number, picture in enumerate(data, 1):
            if picture.row["detection"] is None:
                raise InvalidInputError(
                    "recordio needs aligned faces, and this data set was made without filters: no "
                    "face was looked for; make the plan with --least-similarity -1"
                )
            landmarks = np.array(picture.row["detection"], np.float32)[4:14].reshape(5, 2)
            crop = align_face(decode_photo(picture.data), landmarks)
            writer.add(number, (picture.label,), encode_picture(crop, "jpg", {}))
            first.setdefault(picture.label, number)
            last[picture.label] = number
        for label in range(len(data.labels)):
            writer.add(end + label, (first[label], last[label] + 1))
    finally:
        writer.close()
    (folder / "property").write_text(f"{len(data.labels)},{CROP_SIZE},{CROP_SIZE}\n", encoding="ascii")


def _imagefolder(data: _Dataset, folder: Path) -> None:
    """A folder for each identity, and `metadata.jsonl` for all."""
    (folder / "train").mkdir()
    with (folder / "train/metadata.jsonl").open("w", encoding="utf-8") as metadata:
        for picture in data:
            name = f"{picture.label:08d}/{picture.name}"
            file = folder / "train" / name
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(picture.data)
            metadata.write(json.dumps({"file_name": name, **_numbers(picture)}) + "\n")
    _write_card(data, folder)


def _parquet(data: _Dataset, folder: Path) -> None:
    """Parquet files with the pictures inside, as the hub stores them."""
    (folder / "data").mkdir()
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    numbers = [(name, KEPT.field(name).type) for name in COLUMNS]
    fields = [("image", image), ("label", pa.int64()), *numbers, ("attributes", pa.string())]
    types = {pa.int64(): "int64", pa.int32(): "int32", pa.float32(): "float32", pa.string(): "string"}
    features = {name: {"dtype": types[kind], "_type": "Value"} for name, kind in fields[1:]}
    features = {"image": {"_type": "Image"}, **features}
    schema = pa.schema(fields).with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    for at, number in enumerate(data.shards):
        rows = [
            {
                **_numbers(picture),
                "image": {"bytes": picture.data, "path": picture.name},
                "attributes": picture.row["attributes"],
            }
            for picture in data.shard(number)
        ]
        file = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), file)
        (folder / f"data/train-{at:05d}-of-{len(data.shards):05d}.parquet").write_bytes(file.getvalue())
    _write_card(data, folder)


def _numbers(picture: _Picture) -> dict[str, Any]:
    values = {name: picture.row[name] for name in COLUMNS}
    values = {name: None if isinstance(value, float) and value != value else value for name, value in values.items()}
    attributes = picture.row["attributes"]
    return {"label": picture.label, **values, "attributes": None if attributes is None else json.loads(attributes)}


def _write_card(data: _Dataset, folder: Path) -> None:
    """`README.md` as the hub shows it."""
    header = data.header
    (folder / "README.md").write_text(
        f"""---
task_categories: [image-classification]
tags: [synthetic, face-recognition]
---
# Synthetic faces

{data.count} generated images of {len(data.labels)} identities; `label` is the identity, 0 to {len(data.labels) - 1}.
Bundle {header.bundle}, ID vectors of {header.id_vector_model}, identities: {header.source}, seed {header.seed}.

Every picture was generated. Where the identities are those of people, their ID vectors are biometric data, and so are
these pictures: use them only with the consent of these people. Do not use them to impersonate or identify anyone.
""",
        encoding="utf-8",
    )


FORMATS: Mapping[str, Callable[[_Dataset, Path], None]] = MappingProxyType(
    {"recordio": _recordio, "imagefolder": _imagefolder, "parquet": _parquet}
)
"""Layouts by name: insightface's RecordIO; an image folder with metadata; Parquet files with the pictures inside."""
