"""The demo data set: the wheel's own generator, the same shards from every way of making them, a fixed split."""

from __future__ import annotations

import contextlib
import dataclasses
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from id3pm.errors import InvalidInputError
from id3pm.formats import datasets as shards
from id3pm.training import demo_data
from id3pm.training.demo_data import DemoJob, make_demo_dataset
from id3pm.training.embedding import Embedded, FaceFilter, mirror_landmarks
from id3pm.training.gan import FaceGenerator, latents

pytest.importorskip("gan_face_generate", reason="pip install --no-deps gan_face_generate==1.1.1")
MANIFEST = types.SimpleNamespace(id_vector_model="fake", identity_dim=2, source_sha256="0" * 64)


class FakeEmbedder:
    """Keeps every third picture; its vector is two pixels' values."""

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        pass

    def embed(self, images: NDArray[np.uint8], face_filter: FaceFilter) -> Embedded:
        rows = np.flatnonzero(images[:, 0, 0, 0] % 3 == 0)
        vectors = images[rows, 30, 30:32, 0].astype(np.float32)
        return Embedded(rows, vectors, -vectors, np.zeros((len(rows), 15), np.float32))


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DemoJob:
    monkeypatch.setattr(demo_data, "Embedder", FakeEmbedder)
    monkeypatch.setattr(demo_data, "read_manifest", lambda folder: MANIFEST)
    monkeypatch.setattr(demo_data, "ProcessPoolExecutor", lambda workers, mp_context: ThreadPoolExecutor(workers))
    return DemoJob(folder=tmp_path / "demo", faces=tmp_path, shard_size=12)


def test_generator_equals_the_wheels_own() -> None:
    from gan_face_generate.models import Generator

    original = Generator(ngpu=0, nc=3, nz=100, ngf=64).eval()
    state = torch.load(demo_weights(), map_location="cpu", weights_only=True)
    original.load_state_dict(state["netG_state_dict"])
    with torch.inference_mode():
        images = original(torch.from_numpy(latents(3, [5, 6]))[:, :, None, None]).permute(0, 2, 3, 1).numpy()
    pixels = FaceGenerator().sample(3, [5, 6])
    assert pixels.shape == (2, 64, 64, 3)
    assert np.abs(pixels - (images + 1) * 127.5).max() <= 0.51  # rounding to whole pixel values


def demo_weights() -> Path:
    from id3pm.training.gan import weights_path

    return weights_path()


def test_a_face_depends_on_seed_and_index_alone() -> None:
    alone, beside = latents(1, [7]), latents(1, [3, 7])
    np.testing.assert_array_equal(alone[0], beside[1])
    assert not np.array_equal(latents(2, [7]), alone)
    many = latents(0, range(500))
    assert abs(many.mean()) < 0.02 and abs(many.std() - 1.0) < 0.02


def everything(folder: Path) -> dict[str, NDArray[np.generic]]:
    """All arrays of a set, in order of the faces' numbers."""
    halves = []
    for split in ("train", "test"):
        with contextlib.suppress(InvalidInputError):  # so few faces may leave the test half empty
            halves.append(shards.load(folder, split))  # type: ignore[arg-type]
    arrays = {name: np.concatenate([half[name] for half in halves]) for name in shards.ARRAYS}
    order = np.argsort(arrays["index"])
    return {name: array[order] for name, array in arrays.items()}


@pytest.mark.parametrize("count", [1, 7, 23])
def test_count_means_count(job: DemoJob, count: int) -> None:
    assert make_demo_dataset(job, count=count, workers=2) == count
    faces = everything(job.folder)
    assert len(faces["index"]) == count
    assert (np.diff(faces["index"]) > 0).all()
    np.testing.assert_array_equal(faces["images"], FaceGenerator().sample(0, faces["index"].tolist()))
    np.testing.assert_array_equal(faces["flipped_vectors"], -faces["vectors"])
    assert not list(job.folder.glob("*.tmp"))


def test_a_set_that_grows_is_the_set_made_at_once(job: DemoJob, tmp_path: Path) -> None:
    make_demo_dataset(job, count=20, workers=2)
    grown = dataclasses.replace(job, folder=tmp_path / "grown")
    for count in (3, 11, 20):
        assert make_demo_dataset(grown, count, workers=1) == count
    first, second = everything(job.folder), everything(grown.folder)
    for name in shards.ARRAYS:
        np.testing.assert_array_equal(first[name], second[name])


def test_what_is_there_is_kept(job: DemoJob) -> None:
    make_demo_dataset(job, count=20)
    stamps = {path: path.stat().st_mtime_ns for path in job.folder.iterdir()}
    assert make_demo_dataset(job, count=5) == 20, "the folder has more: none are removed, and all are counted"
    assert {path: path.stat().st_mtime_ns for path in job.folder.iterdir()} == stamps
    shards.shard_path(job.folder, 1).unlink()  # as an interrupted run leaves it
    before = shards.shard_path(job.folder, 0).stat().st_mtime_ns
    assert make_demo_dataset(job, count=20) == 20
    assert shards.shard_path(job.folder, 0).stat().st_mtime_ns == before


def test_the_bar_shows_faces_as_they_come(job: DemoJob, capfd: pytest.CaptureFixture[str]) -> None:
    make_demo_dataset(job, count=9)
    assert "9/9" in capfd.readouterr().err


def test_held_out_people_may_be_made_alone(job: DemoJob, tmp_path: Path) -> None:
    whole = dataclasses.replace(job, shard_size=200)
    alone = dataclasses.replace(whole, folder=tmp_path / "alone", held_out_only=True)
    make_demo_dataset(alone, count=3)
    assert make_demo_dataset(whole, count=200) == 200
    expected, found = shards.load(whole.folder, "test"), shards.load(alone.folder, "test")
    for name in shards.ARRAYS:
        np.testing.assert_array_equal(found[name], expected[name][:3])
    with pytest.raises(InvalidInputError, match="no train images"):
        shards.load(alone.folder, "train")
    with pytest.raises(InvalidInputError, match="held_out_only"):
        make_demo_dataset(dataclasses.replace(whole, folder=alone.folder), count=1)


def test_another_data_set_in_the_folder_is_not_mixed_in(job: DemoJob) -> None:
    make_demo_dataset(job, count=1)
    with pytest.raises(InvalidInputError, match="seed=0, asked for is 1"):
        make_demo_dataset(dataclasses.replace(job, seed=1), count=1)


def face(score: float = 0.9, turn: float = 0.0, eyes: float = 20.0) -> NDArray[np.float32]:
    center = np.array([32.0, 30.0])
    points = np.array([[-eyes / 2, 0], [eyes / 2, 0], [turn * eyes, 8], [-6, 16], [6, 16]]) + center
    return np.array([10, 10, 44, 44, *points.ravel(), score], np.float32)


@pytest.mark.parametrize(
    ("detection", "accepted"),
    [(face(), True), (face(score=0.7), False), (face(turn=-0.4), False), (face(turn=0.2), True), (face(eyes=8), False)],
)
def test_filter_wants_clear_frontal_large_faces(detection: NDArray[np.float32], accepted: bool) -> None:
    assert FaceFilter(min_score=0.8, max_turn=0.25, min_eye_distance=0.2).accepts(detection, 64) is accepted


def test_mirrored_landmarks_are_those_of_the_mirrored_picture() -> None:
    points = face(turn=0.2)[4:14].reshape(5, 2)
    mirrored = mirror_landmarks(points, 64)
    assert mirrored[0, 0] < mirrored[1, 0] and mirrored[3, 0] < mirrored[4, 0]
    np.testing.assert_allclose(mirrored[2], [63 - points[2, 0], points[2, 1]])
    np.testing.assert_allclose(mirror_landmarks(mirrored, 64), points)
