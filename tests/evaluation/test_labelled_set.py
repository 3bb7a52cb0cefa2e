"""`id3pm baseline labelled`: several pictures of each person, and training on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from made_up_people import ColorPipeline, people

from id3pm.errors import InvalidInputError
from id3pm.evaluation.baselines.commands import baseline_group
from id3pm.evaluation.baselines.labelled import write_labelled
from id3pm.evaluation.baselines.trainer import Pairs
from id3pm.evaluation.baselines.weights import load_facts
from id3pm.formats import datasets


class Colors(ColorPipeline):
    """Pictures of 64 px, of the colour of the first three numbers of the vector, brighter with each seed."""

    def generate_64(self, vectors: np.ndarray, seeds: Sequence[int], **options: Any) -> np.ndarray:
        self.made += len(vectors)
        colors = np.rint(100 + 90 * vectors[:, :3]).astype(np.uint8) + np.array(seeds, np.uint8)[:, None]
        return np.broadcast_to(colors[:, None, None], (len(vectors), 64, 64, 3)).copy()


def test_a_labelled_set_has_several_pictures_of_each_training_person_in_every_batch(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    pipeline, data = Colors(), tmp_path_factory.mktemp("people")
    vectors = people(12)
    datasets.begin(data, {"kind": "test", "id_vector_model": "sface"})
    arrays = {
        "images": np.rint(128 + 90 * vectors).astype(np.uint8)[:, None, None].repeat(64, axis=1).repeat(64, axis=2),
        "vectors": vectors,
        "flipped_vectors": vectors,
        "detections": np.zeros((12, 15), np.float32),
        "index": np.array([0, 20, *range(1, 11)]),
    }
    datasets.write_shard(data, 0, arrays)
    assert write_labelled(pipeline, data, tmp_path, 3, {"steps": 2}) == 10  # type: ignore[arg-type]
    assert write_labelled(pipeline, data, tmp_path, 3, {"steps": 2}) == 10 and pipeline.made == 30  # type: ignore[arg-type]
    own, labelled = datasets.load(data, "train"), datasets.load(tmp_path, "train")
    np.testing.assert_array_equal(labelled["images"][::4], own["images"])
    np.testing.assert_array_equal(labelled["vectors"].reshape(-1, 4, 3)[:, 3], own["vectors"])
    assert len(np.unique(labelled["index"])) == 40
    pairs = Pairs(tmp_path, 6, 64)
    assert pairs.facts == {"name": tmp_path.name, "seed": None, "people": 10, "pictures of each": 4}
    seen = set()
    for step in range(10):
        images, vectors = pairs.at(step)
        assert images.shape == (6, 3, 64, 64)
        torch.testing.assert_close(vectors[::2], vectors[1::2])  # two pictures of one person ...
        assert (images[::2] - images[1::2]).abs().amax(dim=(1, 2, 3)).min() > 0.0  # ... and not the same one
        seen |= {tuple(vector.tolist()) for vector in vectors}
    assert len(seen) == 10
    with pytest.raises(InvalidInputError, match="pictures_per_person=4, asked for is 3"):
        write_labelled(pipeline, data, tmp_path, 2, {"steps": 2})  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="batches of 3: of a labelled data set they need 4 or more"):
        Pairs(tmp_path, 3, 64)
    few = tmp_path_factory.mktemp("few")
    assert write_labelled(pipeline, data, few, 1, {"steps": 2}, most=4) == 4  # type: ignore[arg-type]
    np.testing.assert_array_equal(datasets.load(few, "train")["images"][::2], own["images"][:4])
    labels = ("--labelled", str(tmp_path), "--student-steps", "1", "--steps", "1")
    run = ["train", "vec2face", "--data", str(data), "--out", str(tmp_path / "run"), "--batch-size", "4", *labels]
    result = CliRunner().invoke(baseline_group, run, standalone_mode=False)
    assert result.exception is None, result.exception
    facts = load_facts(tmp_path / "run/vec2face.safetensors", "vec2face")
    assert facts["data"]["pictures of each"] == 4
    description = tmp_path / datasets.DESCRIPTION_FILE
    description.write_text(description.read_text().replace('"sface"', '"other"'))
    result = CliRunner().invoke(baseline_group, [*run[:5], str(tmp_path / "second"), *run[6:]], standalone_mode=False)
    assert isinstance(result.exception, InvalidInputError) and "has ID vectors of other" in str(result.exception)
    assert not (tmp_path / "second").exists()
