"""Other layouts: read back by readers of their own."""

from __future__ import annotations

import io
import json
from pathlib import Path

import made_up_plans as made
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from id3pm.errors import InvalidInputError
from id3pm.synthetic.exports import export_dataset
from id3pm.synthetic.maker import ShardMaker
from id3pm.synthetic.recordio import MAGIC, RecordWriter, read_records
from id3pm.synthetic.store import LocalStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three identities of two images; of the second one, none is kept."""
    data = made.plan_data(filters=made.filters(attempts=1))
    out = tmp_path / "faces"
    out.mkdir()
    (out / "plan.parquet").write_bytes(data)
    plan = made.opened(data)
    generator = made.ColorGenerator({10: None, 11: None})
    for number in range(3):
        ShardMaker(plan, LocalStore(out), generator, made.judges(plan)).make(number)
    return out


def test_recordio_is_what_insightface_reads(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "rec"
    assert export_dataset(LocalStore(folder), out, "recordio") == f"{out}: 4 images of 2 identities"
    assert (out / "property").read_text() == "2,112,112\n"
    index = [line.split("\t") for line in (out / "train.idx").read_text().splitlines()]
    with (out / "train.rec").open("rb") as file:
        records = list(read_records(file))
    assert [(int(number), int(offset)) for number, offset in index] == [(r.id, offset) for offset, r in records]
    assert [record.labels for _, record in records] == [(5, 7), (0,), (0,), (1,), (1,), (1, 3), (3, 5)]
    assert [bool(record.picture) for _, record in records] == [False, True, True, True, True, False, False]
    with Image.open(io.BytesIO(records[3][1].picture)) as crop:
        assert crop.format == "JPEG" and crop.size == (112, 112)
        color = np.asarray(crop)[56, 56].astype(int)
    assert np.abs(color - np.rint(128 + 90 * made.AXES[2])).max() <= 4


@pytest.mark.parametrize("at", [0, 1, 4, 8], ids=str)
def test_a_picture_may_contain_the_magic_word(at: int, tmp_path: Path) -> None:
    pictures = [b"a" * at + MAGIC + b"b" * 7 + MAGIC, MAGIC * 3, b"", b"abc"]
    writer = RecordWriter(tmp_path)
    for number, picture in enumerate(pictures):
        writer.add(number, (number,), picture)
    writer.close()
    data = (tmp_path / "train.rec").read_bytes()
    assert len(data) % 4 == 0
    found = [record for _, record in read_records(io.BytesIO(data))]
    assert [record.picture for record in found] == pictures
    assert [record.labels for record in found] == [(0,), (1,), (2,), (3,)]
    # A reader may look for the next record by its magic word: none stands within one.
    aligned = [i for i in range(0, len(data), 4) if data[i : i + 4] == MAGIC]
    offset, heads = 0, []
    while offset < len(data):
        heads.append(offset)
        length = int.from_bytes(data[offset + 4 : offset + 8], "little") & ((1 << 29) - 1)
        offset += 8 + length + -length % 4
    assert aligned == heads


@pytest.mark.parametrize("cut", [3, 11, 40])
def test_a_damaged_file_is_refused(cut: int, tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path)
    writer.add(0, (1.0,), b"x" * 50)
    writer.close()
    with pytest.raises(InvalidInputError, match="no RecordIO record at 0|cut off"):
        list(read_records(io.BytesIO((tmp_path / "train.rec").read_bytes()[:cut])))


def test_image_folder_and_parquet_carry_labels_and_metadata(folder: Path, tmp_path: Path) -> None:
    export_dataset(LocalStore(folder), tmp_path / "images", "imagefolder")
    lines = [json.loads(line) for line in (tmp_path / "images/train/metadata.jsonl").read_text().splitlines()]
    assert [(line["label"], line["identity"]) for line in lines] == [(0, 0), (0, 0), (1, 2), (1, 2)]
    first = (tmp_path / "images/train" / lines[0]["file_name"]).read_bytes()
    export_dataset(LocalStore(folder), tmp_path / "parquet", "parquet")
    files = sorted((tmp_path / "parquet/data").iterdir())
    assert [file.name for file in files] == [f"train-0000{k}-of-00003.parquet" for k in range(3)]
    table = pq.read_table(files[0])
    assert table.column("image").to_pylist()[0]["bytes"] == first
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"} and features["label"] == {"dtype": "int64", "_type": "Value"}
    assert set(features) == set(table.column_names)
    assert "4 generated images of 2 identities" in (tmp_path / "parquet/README.md").read_text()


def test_only_whole_data_sets_are_exported_into_new_folders(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="is not empty"):
        export_dataset(LocalStore(folder), folder, "imagefolder")
    (folder / "00002.tar").unlink()
    with pytest.raises(InvalidInputError, match="1 of 3 shards are missing"):
        export_dataset(LocalStore(folder), tmp_path / "rec", "recordio")
    assert not (tmp_path / "rec").exists()
    with pytest.raises(InvalidInputError, match="is no synthetic data set"):
        export_dataset(LocalStore(tmp_path), tmp_path / "rec", "recordio")
