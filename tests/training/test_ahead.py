"""Batches made ahead are those made in between, bit for bit, whatever threads, processes and passes; and pinned."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest
import torch
from tiny_training import TINY_BASE, TINY_SR, face_arrays
from torch.utils.data import Dataset
from waiting import wait_until

from id3pm.training.ahead import BatchesBeside
from id3pm.training.batch import Batch, Batches
from id3pm.training.data import FaceBatches, SuperResolutionBatches
from id3pm.training.stream import BatchesAhead

CPU = torch.device("cpu")
WITH_ROLLOUTS = dataclasses.replace(TINY_BASE, identity_loss=1.0, rollouts=4, rollout_loss=1.0)
POINTS = np.array([5, 6, 10, 6, 8, 9, 6, 12, 10, 12], np.float32)  # eyes, nose, corners of the mouth


def faces_with_landmarks() -> dict[str, np.ndarray]:
    arrays = face_arrays()
    arrays["detections"][:, 4:14] = POINTS + np.random.default_rng(1).random((len(arrays["images"]), 10))
    return arrays


MADE = {
    "faces": lambda: FaceBatches(faces_with_landmarks(), WITH_ROLLOUTS),
    "super-resolution": lambda: SuperResolutionBatches(face_arrays()["images"], [], TINY_SR),
}


def tensors(batch: Batch) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}

    def keep(x: torch.Tensor) -> torch.Tensor:
        found[str(len(found))] = x
        return x

    batch.each(keep)
    return found


def assert_equal(made: Batch, expected: Batch) -> None:
    pairs = zip(tensors(made).values(), tensors(expected).values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kind", MADE)
def test_the_same_batches_in_and_out_of_order(kind: str, threads: int) -> None:
    plain = MADE[kind]()
    beside = BatchesBeside(plain, 8, threads, device=CPU)
    for step in (0, 1, 2, 5, 6, 1, 7):
        assert_equal(beside.at(step).share(0, 1, CPU), plain.at(step))
    beside.close()


def test_every_pass_of_a_process_gets_its_own_rows() -> None:
    shares = [(1, 4), (3, 4)]  # process 1 of 2, in two passes
    plain = MADE["faces"]()
    beside = BatchesBeside(plain, 8, 2, shares=shares, device=CPU)
    ready = beside.at(2)
    for rank, world in shares:
        own = ready.share(rank, world, CPU)
        assert torch.equal(own.x0, plain.at(2).x0[rank::world])
        assert own.rollouts is not None and own.rollouts.first == rank and len(own.rollouts.noise) == 1
        assert all(tensor.is_contiguous() for tensor in tensors(own).values()), "else no copy is asynchronous"
    beside.close()


@pytest.mark.parametrize("kind", MADE)
def test_all_of_a_batch_is_pinned(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in, because memory is pinned by a GPU's driver."""
    pinned: list[int] = []

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        assert tensor.is_contiguous()
        pinned.append(id(copy := tensor.clone()))
        kept.append(copy)
        return copy

    kept: list[torch.Tensor] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    used: list[tuple[torch.device, str]] = []
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: used.append((device, threading.current_thread().name)))
    beside = BatchesBeside(MADE[kind](), 8, device=torch.device("cuda", 1))
    given = tensors(beside.at(0).share(0, 1, CPU)).values()
    beside.close()
    assert given and all(id(tensor) in pinned for tensor in given)
    assert used == [(torch.device("cuda", 1), "batches_0")], "in the thread, or it would be the first GPU's driver"


class Counted(Dataset[Batch]):
    """Batches that hold their step."""

    def __getitem__(self, step: int) -> Batch:
        return Batch(torch.full((1, 1), step), torch.zeros(1), torch.zeros(1), {})


def test_what_a_process_makes_in_order_is_received_by_a_thread() -> None:
    beside = BatchesBeside(BatchesAhead(Counted(), 6), 6, device=CPU)
    for step in (0, 1, 2, 4, 5):
        assert int(beside.at(step).share(0, 1, CPU).x0) == step
    beside.close()


class Slow:
    """A source that says which steps were asked for, and waits for the word."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.go = threading.Event()

    def at(self, step: int) -> Batch:
        self.asked.append(step)
        assert self.go.wait(60)
        return Counted()[step]


def test_as_many_batches_are_ahead_as_there_are_threads_and_none_beyond_the_run() -> None:
    source = Slow()
    source.go.set()
    made: Batches = source
    beside = BatchesBeside(made, 6, 2, device=CPU)
    beside.at(0)
    wait_until(lambda: len(source.asked) == 3, 60)
    assert sorted(source.asked) == [0, 1, 2]
    for step in range(1, 6):
        beside.at(step)
    beside.close()
    assert sorted(source.asked) == list(range(6)), "each once"


def test_a_batch_that_cannot_be_made_ends_its_own_step() -> None:
    class Broken:
        def at(self, step: int) -> Batch:
            if step == 1:
                raise ValueError("no such image")
            return Counted()[step]

    beside = BatchesBeside(Broken(), 6, 2, device=CPU)
    assert int(beside.at(0).share(0, 1, CPU).x0) == 0
    with pytest.raises(ValueError, match="no such image"):
        beside.at(1)
    beside.close()


def test_images_may_stay_in_their_files(tmp_path_factory: pytest.TempPathFactory) -> None:
    from id3pm.formats import datasets

    folder = tmp_path_factory.mktemp("mapped")
    datasets.begin(folder, {"kind": "test"})
    arrays = face_arrays()
    for shard in range(2):
        rows = slice(30 * shard, 30 * (shard + 1))
        datasets.write_shard(folder, shard, {name: array[rows] for name, array in arrays.items()})
    for config in (TINY_BASE, dataclasses.replace(TINY_SR, flip=True)):
        read, mapped = datasets.load(folder, "train"), datasets.load_mapped(folder, "train")
        assert not isinstance(mapped["images"], np.ndarray)
        if config is TINY_BASE:
            one, other = FaceBatches(read, config).at(3), FaceBatches(mapped, config).at(3)
        else:
            one, other = (SuperResolutionBatches(split["images"], [], config).at(3) for split in (read, mapped))
        assert_equal(one, other)
