"""embed-dataset: crops with the face at one place, bad files reported and skipped, resumable."""

from __future__ import annotations

import types
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from id3pm import shards
from id3pm.errors import InvalidInputError
from id3pm.training import folder_data
from id3pm.training.embedding import Embedded, FaceFilter
from id3pm.training.folder_data import LANDMARKS_IN_FRAME, FolderJob, FolderReport, embed_folder, framed_face


class FakeEmbedder:
    """Finds a face in pictures that are not black; counts how many it was shown."""

    shown: list[int]
    manifest = types.SimpleNamespace(id_vector_model="fake", identity_dim=2, source_sha256="0" * 64)

    def __init__(self, folder: Path) -> None:
        pass

    def embed(self, images: NDArray[np.uint8], face_filter: FaceFilter) -> Embedded:
        self.shown.append(len(images))
        rows = np.arange(1 if images.any() else 0)
        vectors = np.ones((len(rows), 2), np.float32)
        face = np.zeros((len(rows), 15), np.float32)
        face[:, 4:14] = (LANDMARKS_IN_FRAME * 100 + 20).ravel()
        return Embedded(rows, vectors, -vectors, face)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderJob:
    monkeypatch.setattr(FakeEmbedder, "shown", [], raising=False)
    monkeypatch.setattr(folder_data, "Embedder", FakeEmbedder)
    pictures = tmp_path / "pictures"
    (pictures / "00000").mkdir(parents=True)
    for name, value in (("a", 50), ("b", 0), ("d", 70)):
        Image.fromarray(np.full((140, 140, 3), value, np.uint8)).save(pictures / f"00000/{name}.png")
    (pictures / "c.jpg").write_bytes(b"\xff\xd8 not a photograph")
    (pictures / "notes.txt").write_text("not a picture")
    return FolderJob(pictures=pictures, folder=tmp_path / "out", faces=tmp_path, image_size=32, shard_size=3)


def test_good_pictures_are_kept_and_bad_ones_reported(job: FolderJob) -> None:
    assert embed_folder(job) == FolderReport(kept=2, skipped=2)
    arrays = [shards.load(job.folder, split) for split in ("train", "test")]  # type: ignore[arg-type]
    assert sorted(np.concatenate([part["index"] for part in arrays])) == [0, 2]
    assert arrays[0]["images"].shape == (1, 32, 32, 3) and (arrays[0]["images"] == 70).all()
    lines = (job.folder / "skipped.tsv").read_text(encoding="utf-8").splitlines()
    assert [line.split("\t")[:2] for line in lines] == [["1", "00000/b.png"], ["3", "c.jpg"]]
    assert "no face" in lines[0]


def test_finished_shards_are_not_made_again(job: FolderJob) -> None:
    embed_folder(job)
    shards.shard_path(job.folder, 1).unlink()
    FakeEmbedder.shown.clear()
    assert embed_folder(job).kept == 2
    assert FakeEmbedder.shown == []  # the missing shard holds only the broken file


def test_a_folder_without_pictures_is_refused(job: FolderJob, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError, match="no pictures"):
        embed_folder(FolderJob(pictures=tmp_path / "empty", folder=tmp_path / "out2", faces=tmp_path))


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
