"""Comparisons, generated images and summary of the study."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest

from id3pm.errors import NoFaceError
from id3pm.evaluation.robustness.study import Block, Model, Opinion, Subject, study
from id3pm.evaluation.robustness.summary import readings, summarise
from id3pm.evaluation.robustness.thresholds import Threshold
from id3pm.evaluation.robustness.variants import MEAN, ORIGINAL, Picture
from id3pm.face.manifest import PublishedThreshold
from tests.evaluation.robustness.made_up_model import made_up_threshold

ORIGINAL_VALUE, NO_FACE = 10, 0


def vector(value: int) -> np.ndarray:
    """On a quarter circle: grey level 10 lies at 10 degrees."""
    if value == NO_FACE:
        return np.full(2, np.nan, np.float32)
    return np.array([np.cos(np.radians(value)), np.sin(np.radians(value))], np.float32)


class AngleJudge:
    key, independent, centred = "", False, False

    def __init__(self, name: str) -> None:
        self.name = name

    def embed(self, images: np.ndarray) -> np.ndarray:
        return np.stack([vector(int(image[0, 0, 0])) for image in images])


class NoFaces:
    def detect(self, images: np.ndarray) -> list[np.ndarray]:
        return [np.empty((0, 15), np.float32)] * len(images)


class MadeUpPipeline:
    """Makes a picture 5 degrees further than it was asked for."""

    face_stage = NoFaces()

    def __init__(self) -> None:
        self.asked: list[tuple[np.ndarray, int, dict[str, Any]]] = []

    def generate_64(self, vectors: np.ndarray, seed: int, **options: Any) -> np.ndarray:
        self.asked.append((vectors, seed, options))
        angles = np.rint(np.degrees(np.arctan2(vectors[:, 1], vectors[:, 0]))) + 5
        return np.repeat(angles.astype(np.uint8), 64 * 64 * 3).reshape(-1, 64, 64, 3)


def threshold(limit: float) -> Threshold:
    return made_up_threshold("angle", cosine(limit))


def cosine(angle: float) -> float:
    return float(np.cos(np.radians(angle)))


def model(limit: float | None = 32.0, published: float | None = None) -> Model:
    return Model(
        name="angle",
        bundle="made up",
        id_vector_model="angle",
        pipeline=MadeUpPipeline(),  # type: ignore[arg-type]
        judges=(AngleJudge("angle"),),
        thresholds=(None if limit is None else threshold(limit),),
        published=(None if published is None else PublishedThreshold(cosine=cosine(published), source="its authors"),),
    )


def picture(family: str, value: int | None) -> Picture:
    return Picture(family, f"{family} {value}", None if value is None else np.full((256, 256, 3), value, np.uint8))


def subject(original: int = ORIGINAL_VALUE) -> Subject:
    pictures = (
        picture(ORIGINAL, original),
        picture("light", 20),
        picture("light", NO_FACE),
        picture("noise", 45),
        picture("style", 80),
        picture(MEAN, None),
    )
    return Subject("person", pictures, person=True)


def test_everything_is_compared_with_the_original_and_with_what_it_was_made_from() -> None:
    looked = model()
    done: list[int] = []
    block = study(looked, subject(), 7, {"steps": 3}, progress=done.append)
    (opinion,) = block.opinions
    np.testing.assert_allclose(opinion.drift, [0, 10, np.nan, 35, 70, 22.5], atol=0.3)  # the mean lies at 32.5
    np.testing.assert_allclose(opinion.kept, [5, 15, np.nan, 40, 75, 27.5], atol=0.6)
    np.testing.assert_allclose(opinion.own, [5, 5, np.nan, 5, 5, 5], atol=0.6)
    assert [image is None for image in block.images] == [False, False, True, False, False, False]
    ((vectors, seed, options),) = looked.pipeline.asked  # type: ignore[attr-defined]
    assert seed == 7 and options == {"steps": 3} and len(vectors) == 5
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert sum(done) == 6


def test_the_mean_leaves_out_drawings_and_the_original_it_is_judged_against() -> None:
    block = study(model(), subject(), 0, {})
    # Of 20 and 45; with the original (10) it would be 15 degrees away from it, with the drawing (80) 38.
    assert block.opinions[0].drift[-1] == pytest.approx(22.5, abs=0.3)


def test_a_mean_of_nothing_is_nothing() -> None:
    pictures = (picture(ORIGINAL, 10), picture("light", NO_FACE), picture("style", 30), picture(MEAN, None))
    block = study(model(), Subject("person", pictures, person=True), 0, {})
    assert np.isnan(block.opinions[0].drift[-1]) and block.images[-1] is None
    assert not any("mean" in sentence and "ID vectors" in sentence for sentence in readings(summarise([block])))


def test_a_person_without_a_face_is_refused_and_a_picture_of_nobody_is_not() -> None:
    with pytest.raises(NoFaceError, match="person: angle finds no face"):
        study(model(), subject(original=NO_FACE), 0, {})
    gallery = Subject("pictures", (picture("style", NO_FACE), picture("style", 30)), person=False)
    (opinion,) = study(model(), gallery, 0, {}).opinions
    np.testing.assert_allclose(opinion.own, [np.nan, 5], atol=0.3)
    assert np.isnan(opinion.drift).all() and np.isnan(opinion.kept).all()


def test_a_picture_without_a_face_is_not_recognised() -> None:
    lines = {line.family: line for line in summarise([study(model(32), subject(), 0, {})])}
    assert list(lines) == [ORIGINAL, "light", "noise", "style", MEAN]
    light, noise = lines["light"], lines["noise"]
    assert (light.pictures, light.no_face, light.recognised, light.kept) == (2, 1, 0.5, 0.5)
    assert light.drift == pytest.approx(10, abs=0.1)
    assert (noise.no_face, noise.recognised, noise.kept) == (0, 0.0, 0.0)


def test_without_a_threshold_nobody_is_recognised_or_not() -> None:
    lines = summarise([study(model(None), subject(), 0, {})])
    assert all(line.recognised is None and line.kept is None for line in lines)
    assert not any("recognises" in sentence for sentence in readings(lines))


def test_the_published_threshold_is_counted_beside_the_measured_one_and_changes_no_verdict() -> None:
    plain, both = (summarise([study(model(32, limit), subject(), 0, {})]) for limit in (None, 36))
    noise = {line.family: line for line in both}["noise"]
    assert (noise.recognised, noise.recognised_published) == (0.0, 1.0)  # at 35 degrees
    assert (noise.kept, noise.kept_published) == (0.0, 0.0)  # at 40
    for line in both:
        assert dataclasses.replace(line, recognised_published=None, kept_published=None) in plain
    (said,) = set(readings(both)) - set(readings(plain))
    assert "by its published threshold instead: 50% of the changed pictures" in said and "measured one 25%" in said


def test_people_are_counted_together_and_models_apart() -> None:
    one = study(model(), subject(), 0, {})
    other = dataclasses.replace(one, model="other")
    lines = summarise([one, one, other])
    assert [line.pictures for line in lines if line.family == "light"] == [4, 2]


def test_the_sentences_say_what_the_numbers_say() -> None:
    said = readings(summarise([study(model(), subject(), 0, {})]))
    assert said[0].endswith("changed pictures: light 50%, noise 0%, out of distribution 0%.")
    assert "takes 25% of the images generated from changed pictures" in said[1] and said[1].endswith("originals, 100%.")
    assert said[2] == "angle: no face was found in light 1 of 2 pictures."
    assert re.search(r"mean of the ID vectors of the changed pictures lies 2[23]° from the original", said[3])
    assert re.search(r"its image lies 2[78]° away", said[3])
    assert re.search(r"those of single ones 2[78]° on average", said[3])  # 15° and 40°


def test_nothing_is_said_of_a_family_in_which_no_face_was_found() -> None:
    faceless = np.array([0.0, np.nan])
    pictures = (picture(ORIGINAL, 10), picture("light", NO_FACE))
    opinion = Opinion("angle", False, threshold(32), faceless, faceless, faceless)
    nothing = np.full((2, 3), np.nan)
    lines = summarise([Block("angle", Subject("x", pictures, True), (None, None), (opinion,), nothing, nothing)])
    assert lines[1].drift is None and lines[1].recognised == 0.0
