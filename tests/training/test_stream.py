"""The stream: person n is a function of (seed, n), steps come in order and from anywhere, a killed run goes on."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from id3pm.config import UNetConfig
from id3pm.errors import InvalidInputError
from id3pm.face.manifest import read_manifest
from id3pm.training import checkpoint
from id3pm.training.batch import Batch
from id3pm.training.demo_data import DEMO_FILTER, DemoJob, make_demo_dataset
from id3pm.training.embedding import Embedder
from id3pm.training.gan import FaceGenerator
from id3pm.training.presets import DEMO_BASE, TrainConfig
from id3pm.training.session import SessionOptions, train
from id3pm.training.stream import BatchesAhead, GeneratedPeople, stream_batches

pytest.importorskip("gan_face_generate", reason="pip install --no-deps gan_face_generate==1.1.1")
CONFIG = dataclasses.replace(
    DEMO_BASE,
    unet=UNetConfig(
        image_size=64,
        num_channels=32,
        num_res_blocks=1,
        channel_mult=(1, 1),
        attention_resolutions=(),
        identity_dim=128,
    ),
    batch_size=2,
    total_steps=4,
    identity_loss=0.0,
    precision="no",
)


class Numbers(Dataset[Batch]):
    """Batches that hold their step, and the process group that they were made in."""

    def __getitem__(self, step: int) -> Batch:
        return Batch(torch.full((1,), step), torch.tensor([os.getpgrp()]), torch.zeros(1), {})


def test_steps_come_in_order_and_from_anywhere() -> None:
    batches = BatchesAhead(Numbers(), 9)
    assert [int(batches.at(step).x0) for step in (0, 1, 2, 7, 8)] == [0, 1, 2, 7, 8]
    with pytest.raises(StopIteration):
        batches.at(9)


def test_a_signal_to_the_process_group_of_training_leaves_its_batches_alone() -> None:
    """torchrun sends SIGTERM, and a terminal Ctrl-C, to the whole group: a checkpoint is still to be written."""
    assert int(BatchesAhead(Numbers(), 9).at(0).noise) != os.getpgrp()


def test_a_person_follows_from_seed_and_number_alone(face_folder: Path) -> None:
    people = GeneratedPeople(3, face_folder)
    together = people.take([5, 6, 7, 8, 9], [False] * 5)
    alone = people.take([7], [False])
    np.testing.assert_array_equal(alone.images[0], together.images[2])
    np.testing.assert_allclose(alone.vectors[0], together.vectors[2], atol=1e-4)
    others = GeneratedPeople(4, face_folder).take([7], [False])
    assert not np.array_equal(others.images, alone.images)
    found = Embedder(face_folder, threads=1).embed(together.images, DEMO_FILTER)
    assert found.rows.tolist() == [0, 1, 2, 3, 4], "everyone passes the filter of the demo data set"
    np.testing.assert_allclose(found.vectors, together.vectors, atol=1e-4)
    np.testing.assert_allclose(found.detections[:, 4:14].reshape(-1, 5, 2), together.points, atol=1e-3)


def test_a_rejected_candidate_is_replaced_by_the_next(face_folder: Path) -> None:
    embedder, generator = Embedder(face_folder, threads=1), FaceGenerator()
    candidates = generator.sample(3, range(256 * 4, 256 * 4 + 40))
    accepted = embedder.embed(candidates, DEMO_FILTER).rows
    person = GeneratedPeople(3, face_folder).take([4], [False])
    np.testing.assert_array_equal(person.images[0], candidates[accepted[0]])


def test_flipped_people_have_the_vectors_of_their_mirror_images(face_folder: Path) -> None:
    people = GeneratedPeople(3, face_folder)
    plain, flipped = people.take([1], [False]), people.take([1], [True])
    found = Embedder(face_folder, threads=1).embed(plain.images, DEMO_FILTER)
    mirrored, same = (float(flipped.vectors[0] @ of[0]) for of in (found.flipped_vectors, found.vectors))
    assert mirrored > max(same, 0.9), "the detector places the mirrored face a little differently"
    assert np.array_equal(plain.images[:, :, ::-1], flipped.images)


@pytest.fixture(scope="module")
def held_out(face_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    job = DemoJob(folder=tmp_path_factory.mktemp("data"), faces=face_folder, shard_size=40)
    make_demo_dataset(job, count=24)
    return job.folder


def run(config: TrainConfig, data: Path, out: Path, faces: Path, **options: object) -> int:
    small = {"cpu": True, "threads": 1, "preview_faces": 1, "stream": 9, "faces": faces, "data": data, "out": out}
    return train(config, SessionOptions(**small, **options))  # type: ignore[arg-type]


def test_a_run_that_was_stopped_goes_on_with_the_same_people(
    held_out: Path, face_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BatchesAhead, "at", lambda self, step: self._made[step])  # no process, which takes seconds
    assert run(CONFIG, held_out, tmp_path / "straight", face_folder) == 4
    assert run(dataclasses.replace(CONFIG, total_steps=2), held_out, tmp_path / "stopped", face_folder) == 2
    assert run(CONFIG, held_out, tmp_path / "stopped", face_folder, resume=True) == 4
    straight, stopped = checkpoint.load(tmp_path / "straight"), checkpoint.load(tmp_path / "stopped")
    assert all(torch.equal(weights, stopped.model[name]) for name, weights in straight.model.items())
    assert straight.facts["data"]["description"]["kind"] == "stream"


def test_held_out_people_do_not_come_by(held_out: Path, face_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="--stream 0: .* has the people of this seed"):
        small = {"cpu": True, "threads": 1, "faces": face_folder, "data": held_out, "out": tmp_path / "run"}
        train(CONFIG, SessionOptions(stream=0, **small))  # type: ignore[arg-type]
    wrong = dataclasses.replace(CONFIG, unet=dataclasses.replace(CONFIG.unet, identity_dim=512))
    dim = read_manifest(face_folder).identity_dim
    with pytest.raises(InvalidInputError, match=f"have {dim} numbers, this network takes 512"):
        run(wrong, held_out, tmp_path / "run", face_folder)


def test_the_stream_needs_no_mean_where_no_vector_is_altered(face_folder: Path) -> None:
    batches = stream_batches(9, face_folder, CONFIG)
    first, again = batches.at(0), stream_batches(9, face_folder, CONFIG).at(0)
    assert torch.equal(first.x0, again.x0) and torch.equal(first.noise, again.noise)
    assert first.x0.shape == (2, 3, 64, 64)
