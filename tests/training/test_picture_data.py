"""embed-dataset: crops with the face at one place, bad files reported and skipped, resumable; all kinds of sources."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
import types
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from id3pm.errors import InvalidInputError
from id3pm.face.framing import LANDMARKS_IN_FRAME, framed, framed_face
from id3pm.formats import datasets as shards
from id3pm.training import picture_data
from id3pm.training.embedding import Embedded, FaceFilter
from id3pm.training.labels import AttributeFiles, Split
from id3pm.training.picture_data import PictureJob, PictureReport, embed_pictures
from id3pm.training.sources import open_source


class FakeEmbedder:
    """Finds a face in pictures that are not black; counts how many it was shown."""

    shown: list[int]
    manifest = types.SimpleNamespace(id_vector_model="fake", identity_dim=2, source_sha256="0" * 64)

    def __init__(self, folder: Path) -> None:
        pass

    def embed(self, images: NDArray[np.uint8], face_filter: FaceFilter) -> Embedded:
        self.shown.append(len(images))
        rows = np.flatnonzero(images.any(axis=(1, 2, 3)))
        vectors = np.ones((len(rows), 2), np.float32)
        face = np.zeros((len(rows), 15), np.float32)
        face[:, 4:14] = (LANDMARKS_IN_FRAME * 100 + 20).ravel()
        return Embedded(rows, vectors, -vectors, face)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three pictures (the second one black), a broken one, and another file."""
    folder = tmp_path / "pictures"
    (folder / "00000").mkdir(parents=True)
    for number, value in enumerate((50, 0, 70)):
        Image.fromarray(np.full((140, 140, 3), value, np.uint8)).save(folder / f"00000/0000{number}.png")
    (folder / "00003.jpg").write_bytes(b"\xff\xd8 not a photograph")
    (folder / "notes.txt").write_text("not a picture")
    return folder


@pytest.fixture
def job(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PictureJob:
    monkeypatch.setattr(FakeEmbedder, "shown", [], raising=False)
    monkeypatch.setattr(picture_data, "Embedder", FakeEmbedder)
    return PictureJob(
        source=open_source(pictures), folder=tmp_path / "out", faces=tmp_path, image_size=32, shard_size=3
    )


def kept_indices(job: PictureJob) -> list[int]:
    splits = [shards.load(job.folder, split)["index"] for split in ("train", "test")]  # type: ignore[arg-type]
    return sorted(np.concatenate(splits).tolist())


def test_good_pictures_are_kept_and_bad_ones_reported(job: PictureJob) -> None:
    assert embed_pictures(job) == PictureReport(kept=2, skipped=2)
    assert kept_indices(job) == [0, 2]
    train = shards.load(job.folder, "train")
    assert train["images"].shape == (1, 32, 32, 3) and (train["images"] == 70).all()
    lines = (job.folder / "skipped.tsv").read_text(encoding="utf-8").splitlines()
    assert [line.split("\t")[:2] for line in lines] == [["1", "00000/00001.png"], ["3", "00003.jpg"]]
    assert "no face" in lines[0]
    assert FakeEmbedder.shown == [3], "pictures of one size go through the face models together"


def test_finished_shards_are_not_made_again(job: PictureJob) -> None:
    embed_pictures(job)
    shards.shard_path(job.folder, 1).unlink()
    FakeEmbedder.shown.clear()
    assert embed_pictures(job).kept == 2
    assert FakeEmbedder.shown == []  # the missing shard holds only the broken file


def test_landmarks_are_stored_in_pixels_of_the_image(job: PictureJob) -> None:
    embed_pictures(job)
    landmarks = shards.load(job.folder, "train")["detections"][0, 4:14].reshape(5, 2)
    np.testing.assert_allclose(landmarks, LANDMARKS_IN_FRAME * 32, atol=1e-4)


def test_the_whole_picture_is_its_middle_square() -> None:
    photo = np.zeros((40, 100, 3), np.uint8)
    photo[10:12, 50:52] = 255
    face = np.zeros(15, np.float32)
    face[4:14] = np.tile([50.5, 10.5], 5)
    image, detection = framed(photo, face, 20, "whole")
    assert image.shape == (20, 20, 3)
    assert np.argwhere(image[..., 0] == 255).tolist() == [[5, 10]]
    np.testing.assert_allclose(detection[4:14].reshape(5, 2), np.tile([10.0, 5.0], (5, 1)), atol=1e-5)


def test_a_webdataset_gives_what_the_folder_gives(job: PictureJob, pictures: Path, tmp_path: Path) -> None:
    embed_pictures(job)
    shard = tmp_path / "tars" / "part.tar"
    shard.parent.mkdir()
    with tarfile.open(shard, "w") as archive:
        for file in sorted(pictures.rglob("*.*g")):
            archive.add(file, arcname=file.name)
            text = file.stem.encode()
            member = tarfile.TarInfo(f"{file.stem}.cls.txt")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    source = open_source(shard.parent)
    assert [source.name(index) for index in (0, 3)] == ["part.tar:00000.png", "part.tar:00003.jpg"]
    other = dataclasses.replace(job, source=source, folder=tmp_path / "out_tar")
    assert embed_pictures(other) == PictureReport(kept=2, skipped=2)
    for name, array in shards.load(job.folder, "train").items():
        np.testing.assert_array_equal(array, shards.load(other.folder, "train")[name])


def add(archive: tarfile.TarFile, name: str, content: bytes = b"", **attributes: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for attribute, value in attributes.items():
        setattr(member, attribute, value)
    archive.addfile(member, io.BytesIO(content))


def test_every_picture_of_a_webdataset_is_kept_or_reported(job: PictureJob, pictures: Path, tmp_path: Path) -> None:
    good, black = ((pictures / f"00000/0000{number}.png").read_bytes() for number in (0, 1))
    names = ["IMG.2023.01.png", "IMG.2023.02.png", "x.left.png", "x.right.png", "twice.png", "twice.png", ".png.png"]
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in names:
            add(archive, name, good)
        add(archive, "black.png", black)
        add(archive, "old.BMP", b"BM")
        add(archive, "same.png", type=tarfile.LNKTYPE, linkname="x.left.png")
        add(archive, "gone.png", type=tarfile.SYMTYPE, linkname="../elsewhere/gone.png")
        add(archive, "notes.txt", b"no picture")
    source = open_source(tmp_path / "a.tar")
    assert len(source) == len(names) + 4
    assert embed_pictures(dataclasses.replace(job, source=source)) == PictureReport(kept=len(names) + 1, skipped=3)
    lines = (job.folder / "skipped.tsv").read_text(encoding="utf-8").splitlines()
    assert [line.split("\t")[1] for line in lines] == ["a.tar:black.png", "a.tar:old.BMP", "a.tar:gone.png"]
    assert "a link to a file that is not in the tar file" in lines[2]


def test_metadata_of_a_webdataset_go_with_their_pictures(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("x.left.png", "x.right.png", "y.1.png", "y.2.png", "twice.png", "twice.png", "bare.png"):
            add(archive, name, b"picture")
        for name, text in (
            ("x.left", b"left"),
            ("x.right", b"right"),
            ("y", b"both"),
            ("twice", b"1"),
            ("twice", b"2"),
        ):
            add(archive, f"{name}.json", text)
    source = open_source(tmp_path / "a.tar")
    found = [source.metadata(index) for index in range(len(source))]
    assert found == [b"left", b"right", b"both", b"both", b"1", b"2", None]


def test_a_folder_reports_pictures_that_it_cannot_read(job: PictureJob, pictures: Path) -> None:
    for name in ("scan.tiff", "phone.HEIC", "anim.gif"):
        (pictures / name).write_bytes(b"another format")
    (pictures / "dots.in.name.json").write_text("{}")
    (pictures / "dots.in.name.png").write_bytes((pictures / "00000/00000.png").read_bytes())
    source = open_source(pictures)
    assert embed_pictures(dataclasses.replace(job, source=source)) == PictureReport(kept=3, skipped=5)
    lines = (job.folder / "skipped.tsv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 5 and {line.split("\t")[1] for line in lines} >= {"scan.tiff", "phone.HEIC", "anim.gif"}
    assert source.metadata([source.name(index) for index in range(len(source))].index("dots.in.name.png")) == b"{}"


def test_a_shard_made_again_is_reported_once(job: PictureJob) -> None:
    embed_pictures(job)
    before = (job.folder / "skipped.tsv").read_text(encoding="utf-8")
    for number in (1, 0):
        shards.shard_path(job.folder, number).unlink()
    embed_pictures(job)
    after = (job.folder / "skipped.tsv").read_text(encoding="utf-8")
    assert sorted(after.splitlines()) == sorted(before.splitlines())


@pytest.mark.parametrize("struct", [True, False])
def test_parquet_gives_what_the_folder_gives(job: PictureJob, pictures: Path, tmp_path: Path, struct: bool) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    embed_pictures(job)
    files = sorted(pictures.rglob("*.*g"))
    values = [{"bytes": file.read_bytes(), "path": file.name} if struct else file.read_bytes() for file in files]
    table = pa.table({"id": list(range(4)), "image": values, "thumbnail": [b"x"] * 4})
    path = tmp_path / "tables" / "train.parquet"
    path.parent.mkdir()
    pq.write_table(table, path, row_group_size=3)
    source = open_source(path)
    assert source.name(3) == ("train.parquet:00003.jpg" if struct else "train.parquet:3")
    other = dataclasses.replace(job, source=source, folder=tmp_path / "out_parquet")
    assert embed_pictures(other) == PictureReport(kept=2, skipped=2)
    np.testing.assert_array_equal(
        shards.load(job.folder, "train")["images"], shards.load(other.folder, "train")["images"]
    )
    with pytest.raises(InvalidInputError, match="'picture'.*image, thumbnail"):
        open_source(path, "picture")


def features(**emotion: float) -> list[dict[str, object]]:
    names = ("anger", "contempt", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
    emotions = {name: emotion.get(name, 0.0) for name in names}
    return [{"faceAttributes": {"emotion": emotions, "headPose": {"roll": 9.0, "yaw": -45.0, "pitch": 0.0}}}]


def test_ffhq_metadata_give_split_and_attributes(job: PictureJob, pictures: Path, tmp_path: Path) -> None:
    split = tmp_path / "ffhq-dataset-v2.json"
    entries = {"0": {"category": "training"}, "2": {"category": "validation"}}
    split.write_text(json.dumps(entries))
    (pictures / "00000/00000.json").write_text(json.dumps(features(happiness=1.0)))
    (pictures / "00000/00002.json").write_text(json.dumps(features(sadness=0.5, neutral=0.5)))
    labelled = dataclasses.replace(job, split=Split(split), attributes=AttributeFiles(1, None))
    assert embed_pictures(labelled).kept == 2
    train, test = (shards.load(job.folder, half) for half in ("train", "test"))  # type: ignore[arg-type]
    assert train["index"].tolist() == [0] and test["index"].tolist() == [2]
    np.testing.assert_allclose(train["attributes"], [[0, 0, 0, 0, 1, 0, 0, 0, 0.1, -0.5, 0]])
    np.testing.assert_allclose(test["attributes"], [[0, 0, 0, 0, 0, 0.5, 0.5, 0, 0.1, -0.5, 0]])


def test_pictures_without_metadata_are_reported(job: PictureJob, tmp_path: Path) -> None:
    folder = tmp_path / "features"
    folder.mkdir()
    (folder / "00000.json").write_text(json.dumps(features(neutral=1.0)))
    (folder / "00002.json").write_text("[]")
    assert embed_pictures(dataclasses.replace(job, attributes=AttributeFiles(1, folder))).kept == 1
    assert "lists no face" in (job.folder / "skipped.tsv").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", "not FFHQ"),
        ("{", "ffhq.json is not JSON: line 1, column 2"),
        ('{"0": {"category": "test"}}', "category='test'"),
        ('{"a": {}}', "'a'"),
    ],
)
def test_other_metadata_are_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "ffhq.json"
    file.write_text(text)
    with pytest.raises(InvalidInputError, match=words):
        Split(file)


def test_sources_without_pictures_are_refused(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path, words in (("empty", "nothing of that"), ("missing", "does not exist")):
        with pytest.raises(InvalidInputError, match=words):
            open_source(tmp_path / path)
    (pictures / "more.tar").write_bytes(b"")
    with pytest.raises(InvalidInputError, match="4 pictures and 1 tar"):
        open_source(pictures)
    for name, words in (("more.tar", "no uncompressed tar"), ("more.parquet", "no parquet")):
        (tmp_path / name).write_bytes(b"something else entirely")
        with pytest.raises(InvalidInputError, match=words):
            open_source(tmp_path / name)


@pytest.mark.parametrize("scale", [1.0, 3.0, 9.0])
def test_eyes_lie_at_one_place_whatever_the_size_of_the_photo(scale: float) -> None:
    size = 64
    side = int(100 * scale) + 40
    landmarks = LANDMARKS_IN_FRAME * 100 * scale + 20
    photo = np.zeros((side, side, 3), np.uint8)
    for x, y in landmarks[:2]:
        radius = max(2, int(3 * scale))
        photo[int(y) - radius : int(y) + radius + 1, int(x) - radius : int(x) + radius + 1] = 255
    crop = framed_face(photo, landmarks, size)[..., 0].astype(float)
    for half, eye in ((crop[:, :32], LANDMARKS_IN_FRAME[0]), (crop[:, 32:], LANDMARKS_IN_FRAME[1] - [0.5, 0.0])):
        rows, columns = np.mgrid[0 : half.shape[0], 0 : half.shape[1]]
        center = np.array([(columns * half).sum(), (rows * half).sum()]) / half.sum()
        np.testing.assert_allclose(center, eye * size, atol=0.8)
