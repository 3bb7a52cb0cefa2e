from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from id3pm.errors import InvalidInputError
from id3pm.evaluation.robustness import thresholds
from id3pm.evaluation.robustness.thresholds import angles, degrees
from id3pm.face.manifest import PublishedThreshold, read_manifest


class MadeUpJudge:
    """Sees the number of a person in the middle of the picture, and turns a little in an altered one."""

    name = key = "made up"
    independent = False

    def __init__(self, people: int, centred: bool, turn: float = 0.3) -> None:
        generator = np.random.default_rng(0)
        self.offset = 5.0 if centred else 0.0
        self.centred = centred
        self._vectors = generator.normal(0, 1, (people, 64))
        self._turns = generator.normal(0, turn, (people, 64))
        self.calls = 0

    def embed(self, images: np.ndarray) -> np.ndarray:
        self.calls += 1
        altered = self.calls % 2 == 0
        return (self._vectors + altered * self._turns + self.offset).astype(np.float32)


def test_angles_are_in_degrees_and_of_centred_vectors() -> None:
    one = np.array([[1.0, 0], [1, 0], [1, 0], [np.nan, np.nan]])
    other = np.array([[3.0, 0], [0, 2], [-1, 0], [1, 0]])
    np.testing.assert_allclose(angles(one, other, None), [0, 90, 180, np.nan])
    np.testing.assert_allclose(angles(one[:1] + 7, other[1] + 7, (7.0, 7.0)), [90])
    assert degrees(1.0000001) == 0


@pytest.mark.parametrize("centred", [False, True])
def test_the_threshold_lies_between_one_person_and_two(centred: bool) -> None:
    people = 100
    judge = MadeUpJudge(people, centred)
    found = thresholds.measure(judge, "key", np.zeros((people, 8, 8, 3), np.uint8), "made up")
    genuine = angles(judge.embed(np.empty(0)), judge.embed(np.empty(0)), found.center)
    strangers = angles(judge._vectors, np.roll(judge._vectors, 1, axis=0), None)
    assert genuine.max() < found.degrees < np.quantile(strangers, 0.05)
    assert found.accepted_at_published is None
    assert found.accuracy == 1.0 and found.people == people and found.data == "made up"
    assert found.false_match_1_in_100 < found.false_match_1_in_1000  # cosines: stricter is higher
    assert (found.center is not None) == centred
    if found.center is not None:
        np.testing.assert_allclose(found.center, 5, atol=0.5)


def test_how_many_strangers_the_published_threshold_accepts_is_counted() -> None:
    limit = PublishedThreshold(cosine=0.1, source="its authors")
    found = thresholds.measure(MadeUpJudge(50, False), "key", np.zeros((50, 8, 8, 3), np.uint8), "made up", limit)
    vectors = MadeUpJudge(50, False)._vectors
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = (units @ units.T)[np.triu_indices(50, 1)]
    assert found.accepted_at_published == pytest.approx((pairs >= 0.1).mean(), abs=1e-3) and pairs.max() > 0.1


def test_too_few_people_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="at least 20"):
        thresholds.measure(MadeUpJudge(19, False), "key", np.zeros((19, 8, 8, 3), np.uint8), "made up")


def test_thresholds_come_back_from_their_file(tmp_path: Path) -> None:
    measured = {
        key: thresholds.measure(MadeUpJudge(40, centred), key, np.zeros((40, 8, 8, 3), np.uint8), "made up")
        for key, centred in (("a", True), ("b", False))
    }
    thresholds.write(tmp_path / "thresholds.json", measured)
    assert thresholds.read(tmp_path / "thresholds.json") == measured
    for text in ("{", "[1]", '[{"judge": "x"}]', "3"):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(InvalidInputError, match=r"bad\.json has no thresholds"):
            thresholds.read(tmp_path / "bad.json")


def test_the_shipped_thresholds_are_those_of_the_embedded_models(face_folder: Path) -> None:
    source = read_manifest(face_folder).source_sha256
    shipped = thresholds.read()
    assert set(shipped) == {f"sface {source}", f"dlib resnet_v1, faces by sface {source}"}
    for found in shipped.values():
        assert 45 < found.degrees < 75 and found.people >= 500 and found.strangers_accepted < 0.02
        assert (found.center is None) == (found.judge == "sface")
