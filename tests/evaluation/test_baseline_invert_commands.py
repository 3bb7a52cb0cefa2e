"""`id3pm baseline gaussian | gan | nbnet`: images of pictures and of ID vectors, and what they cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from id3pm.errors import Id3pmError, InvalidInputError
from id3pm.evaluation.baselines.commands import baseline_group
from id3pm.evaluation.baselines.nbnet import NbNet
from id3pm.evaluation.baselines.trained import TrainedNetwork
from id3pm.evaluation.baselines.weights import save_weights
from id3pm.samples import PEOPLE

DIM = 128
FACTS: dict[str, Any] = {
    "method": "nbnet",
    "id_vector_model": "sface",
    "network": {"identity_dim": DIM, "blocks": "B", "channels": 256},
    "steps": 7,
    "batch size": 2,
    "data": {"name": "made up", "people": 5},
}


@pytest.fixture
def repository(face_folder: Path, tmp_path: Path) -> Path:
    """A model repository with the face stage alone: these methods need no U-Net."""
    folder = tmp_path / "repository/face_embedding/1"
    folder.mkdir(parents=True)
    (folder / "engine").symlink_to(face_folder, target_is_directory=True)
    return tmp_path / "repository"


def run(repository: Path, method: str, *words: str | Path) -> Result:
    common = ["--repository", str(repository), "--out", str(repository / "out"), "--threads", "1"]
    return CliRunner().invoke(baseline_group, [method, *map(str, words), *common], standalone_mode=False)


def test_a_search_makes_an_image_of_a_picture_for_each_seed_within_its_budget(repository: Path) -> None:
    asked = (PEOPLE / "03.png", "--queries", "40", "--bank", "3", "--seeds", "2")
    result = run(repository, "gan", *asked)
    assert result.exit_code == 0, result.exception
    report = json.loads((repository / "out/gan.json").read_text())
    assert (report["method"], report["black box"], report["queries per image"]) == ("GAN search", "sface", 32.0)
    assert [(row["source"], row["seed"], row["file"]) for row in report["rows"]] == [
        ("03", 0, "gan_03_0.png"),
        ("03", 1, "gan_03_1.png"),
    ]
    images = [np.asarray(Image.open(repository / "out" / row["file"])) for row in report["rows"]]
    assert images[0].shape == (64, 64, 3) and not np.array_equal(*images)
    assert all(f"similarity {row['similarity']:.3f}" in result.output for row in report["rows"])
    kept = sorted(file.name for file in (repository / "out/cache").iterdir())
    assert run(repository, "gan", *asked).exit_code == 0
    assert sorted(file.name for file in (repository / "out/cache").iterdir()) == kept
    assert json.loads((repository / "out/gan.json").read_text()) == report


def test_a_network_makes_an_image_of_each_id_vector_of_a_file(repository: Path) -> None:
    save_weights(repository / "nbnet.safetensors", NbNet(DIM, "B"), FACTS)
    vectors = np.random.default_rng(0).standard_normal((2, DIM)).astype(np.float32)
    np.save(repository / "two.npy", vectors)
    result = run(repository, "nbnet", repository / "two.npy", "--weights", repository)
    assert result.exit_code == 0, result.exception
    expected = TrainedNetwork("nbnet", repository / "nbnet.safetensors", "sface").images(vectors, [0, 0])
    for row, image in enumerate(expected):
        np.testing.assert_array_equal(np.asarray(Image.open(repository / f"out/nbnet_two_{row}_0.png")), image)


def test_gaussian_sampling_refuses_a_small_budget_and_sources_that_do_not_fit(repository: Path) -> None:
    for words, message in (
        ((PEOPLE / "03.png", "--queries", "800"), "800 queries: Gaussian sampling needs 880"),
        ((PEOPLE / "03.png", PEOPLE / "03.png"), "two sources have the name '03'"),
        ((repository / "short.npz",), "not for sface vectors of 4"),
    ):
        np.savez(repository / "short.npz", vectors=np.ones((1, 4), np.float32), id_vector_model="sface")
        found = run(repository, "gaussian", *words).exception
        assert isinstance(found, InvalidInputError) and message in str(found)
    assert not (repository / "out").exists()


def test_a_source_that_is_no_picture_is_refused_before_the_bank_is_made(repository: Path) -> None:
    (repository / "notes.txt").write_text("no picture")
    found = run(repository, "gan", repository / "notes.txt", "--bank", "100000").exception
    assert isinstance(found, Id3pmError) and "notes.txt" in str(found)
    assert not (repository / "out").exists()
