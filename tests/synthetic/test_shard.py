"""A shard: what is kept, tried again and rejected; a pure function of the plan."""

from __future__ import annotations

import io
import json
import math
import tarfile

import made_up_plans as made
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from id3pm.synthetic.shard import Shard, make_shard
from id3pm.synthetic.shard_files import encode_picture, sha256
from id3pm.synthetic.variations import FIRST_SEEDS

X, Y, Z = made.AXES


def make(generator: made.ColorGenerator, data: bytes, number: int = 0) -> Shard:
    plan = made.opened(data)
    return make_shard(number, plan.header, plan.shard(number), generator, made.judges(plan))


def rows(shard: Shard, suffix: str) -> list[dict]:
    return pq.read_table(io.BytesIO(shard.files[f"{shard.number:05d}{suffix}"])).to_pylist()


def test_rejected_images_are_made_again_with_further_seeds() -> None:
    bad = {0: Y, FIRST_SEEDS: None, 1: None}
    generator = made.ColorGenerator(bad)
    shard = make(generator, made.plan_data(filters=made.filters()))
    assert (shard.kept, shard.rejected, shard.missing) == (2, 3, 0)
    assert generator.asked == [0, 1, FIRST_SEEDS, FIRST_SEEDS + 1, 2 * FIRST_SEEDS]
    kept = rows(shard, ".parquet")
    assert [(row["image"], row["attempt"], row["seed"]) for row in kept] == [
        (0, 2, 2 * FIRST_SEEDS),
        (1, 1, FIRST_SEEDS + 1),
    ]
    refused = [(row["image"], row["attempt"], row["reason"]) for row in rows(shard, ".rejected.parquet")]
    assert refused == [(0, 0, "similarity"), (1, 0, "no_face"), (0, 1, "no_face")]
    assert kept[0]["similarity"] == 1 and kept[0]["other_similarity"] == pytest.approx(0, abs=0.01)
    assert len(kept[0]["detection"]) == 15


def test_attempts_are_bounded_and_what_is_missing_is_counted() -> None:
    generator = made.ColorGenerator({seed + k * FIRST_SEEDS: Z for seed in (0, 1) for k in range(9)})
    shard = make(generator, made.plan_data(filters=made.filters(attempts=3)))
    assert (shard.kept, shard.rejected, shard.missing) == (0, 6, 2) and len(generator.asked) == 6
    assert rows(shard, ".parquet") == []


def test_an_image_like_another_identity_is_rejected() -> None:
    between = (X + Y) / np.float32(2**0.5)
    data = made.plan_data(filters=made.filters(least_similarity=0.5, most_other=0.6, attempts=1))
    shard = make(made.ColorGenerator({0: between}), data)
    (refused,) = rows(shard, ".rejected.parquet")
    assert (refused["image"], refused["reason"], refused["other_identity"]) == (0, "other_identity", 1)
    assert refused["similarity"] == pytest.approx(0.707, abs=0.01) and refused["other_similarity"] > 0.6


def test_the_second_model_rejects_what_is_unlike_the_identitys_other_images() -> None:
    tilted = np.array([0.8, 0.6, 0], np.float32)
    asked = made.filters(least_similarity=0.7, second="dlib", least_second=0.7, attempts=1)
    shard = make(made.ColorGenerator({2: tilted}), made.plan_data(images=5, filters=asked))
    assert [row["image"] for row in rows(shard, ".parquet")] == [0, 1, 3, 4]
    (refused,) = rows(shard, ".rejected.parquet")
    assert (refused["image"], refused["reason"]) == (2, "second_similarity")
    assert refused["second_similarity"] == pytest.approx(1 - np.linalg.norm(tilted - X), abs=0.01)
    alone = make(made.ColorGenerator(), made.plan_data(images=1, filters=asked))
    assert alone.kept == 1 and math.isnan(rows(alone, ".parquet")[0]["second_similarity"])


def test_the_bytes_do_not_depend_on_the_order_in_which_images_arrive() -> None:
    data = made.plan_data(images=70, filters=made.filters(second="dlib"))
    bad = {3: Y, 40: None}
    first = make(made.ColorGenerator(bad), data)
    second = make(made.ColorGenerator(bad, backwards=True), data)
    assert first.files == second.files and first.kept == 70
    assert make(made.ColorGenerator(), data).files != first.files
    assert make(made.ColorGenerator(bad), data, number=1).files.keys() != first.files.keys()


def test_the_tar_file_is_webdatasets_and_its_bytes_are_fixed() -> None:
    shard = make(made.ColorGenerator(), made.plan_data(images=2), number=1)
    with tarfile.open(fileobj=io.BytesIO(shard.files["00001.tar"])) as tar:
        members = tar.getmembers()
        contents = {member.name: tar.extractfile(member).read() for member in members}  # type: ignore[union-attr]
    assert [member.name for member in members] == [
        f"00000000{k}.{end}" for k in (2, 3) for end in ("png", "cls", "json")
    ]
    assert {(member.mtime, member.uid, member.gid, member.uname) for member in members} == {(0, 0, 0, "")}
    assert contents["000000002.cls"] == b"1"
    assert json.loads(contents["000000003.json"])["seed"] == 11
    (first, _) = rows(shard, ".parquet")
    assert first["sha256"] == sha256(contents["000000002.png"])
    with Image.open(io.BytesIO(contents["000000002.png"])) as picture:
        assert json.loads(picture.text["id3pm"]) == json.loads(first["receipt"]) == made.receipt(10)
        assert sha256(np.asarray(picture).tobytes()) == first["pixels_sha256"]
        assert "trainedAlgorithmicMedia" in picture.text["XML:com.adobe.xmp"]


def test_a_jpeg_says_that_it_was_generated() -> None:
    image = np.full((16, 16, 3), (10, 200, 90), np.uint8)
    data = encode_picture(image, "jpg", {})
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
        assert picture.format == "JPEG" and b"trainedAlgorithmicMedia" in picture.info["xmp"]
        assert np.abs(np.asarray(picture).astype(int) - image).max() <= 3
