"""Plans: what they say is a pure function of the options, and damaged or hostile ones are refused by name."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_up_plans as made
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from id3pm.attributes import decode
from id3pm.cli import cli
from id3pm.errors import InvalidInputError
from id3pm.formats import datasets
from id3pm.idspace.files import write_vectors
from id3pm.idspace.space import Space
from id3pm.synthetic.commands import dataset_group
from id3pm.synthetic.draws import parse_draw
from id3pm.synthetic.identities import read_people
from id3pm.synthetic.maker import open_plan
from id3pm.synthetic.plan_file import HEADER
from id3pm.synthetic.variations import FIRST_SEEDS, parse_attributes, read_attributes, retry_seed

NO_FILTERS = ("--second", "none", "--least-similarity", "none", "--most-other", "none")


def plan(file: Path, repository: Path, *more: str) -> Any:
    arguments = ["plan", str(file), "--repository", str(repository), *NO_FILTERS, *more]
    return CliRunner().invoke(dataset_group, arguments, catch_exceptions=True)


def test_the_same_options_give_the_same_bytes(tiny_repository: Path, tmp_path: Path) -> None:
    options = (
        "--identities",
        "5",
        "--images",
        "3",
        "--shard-size",
        "7",
        "--guidance",
        "1.5..3",
        "--attribute",
        "yaw=-30..30",
    )
    for name in ("a", "b"):
        assert plan(tmp_path / name, tiny_repository, *options).exit_code == 0
    assert plan(tmp_path / "c", tiny_repository, *options, "--seed", "1").exit_code == 0
    first, second, third = ((tmp_path / name).read_bytes() for name in ("a", "b", "c"))
    assert first == second != third


def test_rows_are_varied_within_their_ranges_and_no_identity_is_split(tiny_repository: Path, tmp_path: Path) -> None:
    done = plan(
        tmp_path / "p",
        tiny_repository,
        *("--identities", "5", "--images", "3", "--shard-size", "7", "--guidance", "1.5..3", "--option", "steps=6"),
        *("--attribute", "yaw=-30..-10", "--attribute", "emotion=happy,sad"),
    )
    assert "15 images in 3 shards" in done.output
    found = open_plan(str(tmp_path / "p"))
    assert found.shard_sizes == [6, 6, 3]
    rows = [row for number in range(3) for row in found.shard(number)]
    assert [row.image for row in rows] == list(range(15))
    assert [row.identity for row in rows] == [i // 3 for i in range(15)]
    assert len({row.seed for row in rows}) == 15 and all(0 <= row.seed < FIRST_SEEDS for row in rows)
    assert all(1.5 <= row.guidance_scale <= 3 for row in rows) and len({row.guidance_scale for row in rows}) > 1
    values = [decode(row.attributes, 1) for row in rows]
    assert all(-30 <= value["yaw"] <= -10 for value in values)
    assert {max(value, key=lambda name: value[name] if name != "yaw" else -1) for value in values} == {
        "happiness",
        "sadness",
    }
    assert found.header.options["steps"] == 6 and found.header.options["sampler"] == "ddpm"
    np.testing.assert_array_equal(found.targets()[[row.identity for row in rows]], [row.vector for row in rows])


def test_attributes_may_come_from_a_file(tiny_repository: Path, tmp_path: Path) -> None:
    (tmp_path / "poses.csv").write_text("yaw,emotion\n-20,happy\n,sad\n")
    (tmp_path / "poses.jsonl").write_text('{"yaw": 5}\n\n{"yaw": 6, "roll": 1}\n')
    assert read_attributes(tmp_path / "poses.csv") == [{"yaw": -20.0, "emotion": "happy"}, {"emotion": "sad"}]
    done = plan(tmp_path / "p", tiny_repository, "--identities", "4", "--attributes", str(tmp_path / "poses.jsonl"))
    assert done.exit_code == 0, done.output
    yaws = {round(decode(row.attributes, 1)["yaw"]) for row in open_plan(str(tmp_path / "p")).shard(0)}
    assert yaws == {5, 6}


def test_further_seeds_are_those_of_the_plan_and_never_meet() -> None:
    seeds = [retry_seed(seed, attempt) for seed in (0, FIRST_SEEDS - 1) for attempt in range(4)]
    assert len(set(seeds)) == 8 and retry_seed(5, 0) == 5
    assert 0 <= retry_seed(2**63 - 1, 1) < 2**63


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--attribute", "smile=0.5"), "attribute set 1 has no smile"),
        (("--attribute", "yaw=-400..0"), "yaw=.*: must be a number from -90 to 90"),
        (("--attribute", "yaw"), "give NAME=VALUES"),
        (("--attribute", "yaw=1", "--attribute", "yaw=2"), "attribute yaw: given twice"),
        (("--guidance", "0.5..2"), "guidance 0.5 .. 2: must be between 1"),
        (("--guidance", "nan"), "guidance='nan': must be finite"),
        (("--guidance", "3..2"), "the lower number first"),
        (("--option", "stepz=4"), "unknown option stepz; did you mean steps"),
        (("--option", "steps=101"), "steps=101: this model has 100 training steps"),
        (("--option", "guidance_scale=2"), "guidance_scale: give --guidance"),
        (("--images", "200000"), "images=200000: must be from 1 to 100000"),
        (("--shard-size", "200000"), "shard_size=200000"),
        (("--least-angle", "181"), "least_angle=181"),
        (("--share", "0.4"), "--share: is for --from between, not for sphere"),
        (("--split", "train"), "--split: is for --from people and between, not for sphere"),
    ],
    ids=" ".join,
)
def test_options_that_break_a_rule_are_refused(
    options: tuple[str, ...], message: str, tiny_repository: Path, tmp_path: Path
) -> None:
    done = plan(tmp_path / "p", tiny_repository, "--identities", "2", *options)
    assert done.exit_code != 0 and not (tmp_path / "p").exists()
    assert re.search(message, f"{done.output}{done.exception}")


def rewritten(change: Callable[[pa.Table], pa.Table] = lambda table: table, **header: Any) -> bytes:
    """The plan of three axes with another table or header."""
    table = pq.read_table(io.BytesIO(made.plan_data()))
    metadata = json.loads(table.schema.metadata[HEADER])
    table = change(table)
    text = json.dumps({**metadata, **header}).encode()
    file = io.BytesIO()
    schema = table.schema.with_metadata({HEADER: text})
    with pq.ParquetWriter(file, schema) as writer:
        for start in range(0, table.num_rows, 2):
            writer.write_table(table.slice(start, 2).cast(schema))
    return file.getvalue()


def with_column(name: str, values: list[Any], kind: pa.DataType | None = None) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        at = table.column_names.index(name)
        return table.set_column(at, name, pa.array(values, kind or table.schema.field(name).type))

    return change


def vector_bytes(*numbers: float) -> bytes:
    return np.array(numbers, "<f4").tobytes()


NAN = vector_bytes(np.nan, 0, 1)
HOSTILE = {
    "no Parquet": (b"PAR1 no Parquet PAR1", "the plan is damaged, or no Parquet file"),
    "empty": (b"", "the plan is damaged, or no Parquet file"),
    "another table": (None, "the plan has no header"),
    "cut off": (made.plan_data()[:-20], "the plan is damaged, or no Parquet file"),
    "wrong type": (rewritten(with_column("seed", ["a"] * 6, pa.string())), "the plan has the columns .*seed string"),
    "a column less": (rewritten(lambda table: table.drop_columns(["seed"])), "the plan has the columns"),
    "huge count": (rewritten(images=10**11), "6 images in 3 shards, its header says 100000000000"),
    "boundless count": (rewritten(images=10**30), "images=10+: must be at least 1"),
    "text for a count": (rewritten(images="6"), "PlanHeader.images='6': expected int"),
    "unknown key": (rewritten(colour=1), "PlanHeader has no colour"),
    "attribute set": (rewritten(attribute_set=17), "attribute_set=17: is not known"),
    "schema": (rewritten(schema=2), "schema=2: this version reads 1"),
}
HOSTILE_ROWS = {
    "NaN": (with_column("id_vector", [NAN] * 6), "image 0: id_vector is zero or not finite"),
    "long": (with_column("id_vector", [vector_bytes(1, 0, 0, 0)] * 6), "image 0: id_vector has 16 bytes: need 12"),
    "null": (with_column("id_vector", [None] * 6), "image 0: id_vector has none"),
    "norm": (with_column("id_vector", [vector_bytes(2, 0, 0)] * 6), "image 0: id_vector has L2 norm 2: must be 1"),
    "seed": (with_column("seed", [-1] * 6), "image 0: seed=-1: must be from 0"),
    "guidance": (with_column("guidance_scale", [np.nan] * 6), "image 0: guidance_scale=nan: must be between 1"),
    "identity": (with_column("identity", [9] * 6), "image 0: identity=9: must be from 0 to 2"),
    "order": (with_column("image", [1] * 6), "image 1 stands where 0 belongs"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_plans_are_refused_when_they_are_opened(name: str) -> None:
    data, message = HOSTILE[name]
    if data is None:
        file = io.BytesIO()
        pq.write_table(pa.table({"a": [1]}), file)
        data = file.getvalue()
    with pytest.raises(InvalidInputError, match=message):
        made.opened(data)


@pytest.mark.parametrize("name", HOSTILE_ROWS)
def test_hostile_rows_are_refused_by_number(name: str) -> None:
    change, message = HOSTILE_ROWS[name]
    with pytest.raises(InvalidInputError, match=message):
        made.opened(rewritten(change)).shard(0)


def test_a_shard_too_large_for_memory_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("id3pm.synthetic.plan_file.MAX_SHARD", 1)
    with pytest.raises(InvalidInputError, match="a shard of 2 images: at most 1"):
        made.opened(made.plan_data())


def test_filters_take_the_published_threshold(tiny_repository: Path, face_folder: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    for name in ("denoiser_64", "super_resolution"):
        (repository / name).symlink_to(tiny_repository / name)
    (repository / "face_embedding/1").mkdir(parents=True)
    (repository / "face_embedding/1/engine").symlink_to(face_folder)
    arguments = ["plan", str(tmp_path / "p"), "--repository", str(repository), "--identities", "2"]
    assert CliRunner().invoke(dataset_group, arguments).exit_code == 0
    found = open_plan(str(tmp_path / "p")).header.filters
    assert (found.least_similarity, found.most_other, found.least_second) == (0.363, 0.363, 0.4)
    assert set(found.models) == {"sface", "dlib"}
    done = CliRunner().invoke(dataset_group, [*arguments, "--least-similarity", "2"])
    assert "least_similarity=2.0: must be between -1 and 1" in str(done.exception)


def test_people_come_from_files_and_held_out_halves(tmp_path: Path) -> None:
    space = Space(id_vector_model="sface", identity_dim=3)
    vectors = made.AXES * np.float32(2)
    np.save(tmp_path / "people.npy", vectors)
    np.testing.assert_array_equal(read_people(tmp_path / "people.npy", "test", space), vectors)
    write_vectors(tmp_path / "people.npz", made.AXES, "arcface")
    with pytest.raises(InvalidInputError, match="the bundle is for sface vectors of 3 numbers, not for arcface"):
        read_people(tmp_path / "people.npz", "test", space)
    folder = tmp_path / "data"
    datasets.begin(folder, {"kind": "test", "id_vector_model": "sface"})
    arrays = {name: np.zeros((3, 1), np.float32) for name in datasets.ARRAYS}
    datasets.write_shard(folder, 0, {**arrays, "vectors": made.AXES, "index": np.array([0, 1, 20])})
    np.testing.assert_array_equal(read_people(folder, "test", space), made.AXES[[0, 2]])
    np.testing.assert_array_equal(read_people(folder, "train", space), made.AXES[[1]])


def test_words_and_numbers_of_attributes() -> None:
    found = parse_attributes(["gender=female,male", "age=20..60"])
    assert found == {"gender": ("female", "male"), "age": parse_draw("20..60", "age")}
    assert dataclasses.asdict(parse_draw("2", "x"))["values"] == (2.0,)
    assert cli.get_command(None, "dataset") is dataset_group  # type: ignore[arg-type]
