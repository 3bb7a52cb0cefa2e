"""The study on made-up people whose similarities are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_people import ColorJudge, ColorPipeline, people, write_people

from id3pm.errors import InvalidInputError
from id3pm.evaluation.cache import Cache
from id3pm.evaluation.identity.study import IdentityStudy, Setting, settings_of
from id3pm.evaluation.identity.targets import altered, load_targets
from id3pm.pipeline import Pipeline

PEOPLE = 40


def setting(guidance_scale: float = 2.0) -> Setting:
    return Setting(sampler="ddpm", steps=25, guidance_scale=guidance_scale)


def study(folder: Path, pipeline: Any = None, *judges: ColorJudge, seeds: int = 1, **options: Any) -> IdentityStudy:
    if not (folder / "data").exists():
        write_people(folder / "data", PEOPLE)
    targets = load_targets(folder / "data", "sface", PEOPLE, seeds)
    return IdentityStudy(pipeline or ColorPipeline(), targets, judges or [ColorJudge()], Cache(folder / "c"), **options)


def test_yardsticks_are_other_people_and_the_altered_target(tmp_path: Path) -> None:
    (baseline,) = study(tmp_path).baselines
    # Vectors that add up to about 0: the mean over all ordered pairs of different people is -1 / (N - 1).
    total = people(PEOPLE).sum(axis=0)
    assert baseline.impostors.count == PEOPLE * (PEOPLE - 1)
    assert baseline.impostors.mean == pytest.approx((total @ total - PEOPLE) / (PEOPLE * (PEOPLE - 1)), abs=1e-5)
    # Brightening by 1.2 moves every colour the same way: neither perfect nor far off.
    assert 0.8 < baseline.bound.mean < 0.999
    assert baseline.bound.count == PEOPLE
    assert baseline.independent is False


def test_the_right_person_the_wrong_person_and_nobody(tmp_path: Path) -> None:
    evaluation = study(tmp_path, None, ColorJudge(), ColorJudge(independent=True, centred=True))
    right, wrong, faceless = (evaluation.measure(setting(scale)).measurements for scale in (2.0, 1.0, 3.0))
    for judged in right:
        assert judged.similarity.mean == pytest.approx(1.0, abs=1e-3)
        assert judged.recovered > 1.0  # nearer to the target than its altered picture
        assert judged.verification.accuracy == 1.0
        assert judged.no_face == 0.0
    assert wrong[0].similarity.mean == pytest.approx(-1.0, abs=1e-3)
    assert wrong[0].recovered < -0.9
    assert faceless[0].no_face == 1.0
    assert faceless[0].similarity.count == 0
    assert faceless[0].verification.accuracy == 0.0


def test_every_seed_of_every_person_counts(tmp_path: Path) -> None:
    pipeline = ColorPipeline()
    done: list[int] = []
    found = study(tmp_path, pipeline, seeds=3).measure(setting(), done.append)
    assert pipeline.made == sum(done) == 3 * PEOPLE
    assert found.measurements[0].similarity.count == 3 * PEOPLE
    assert found.measurements[0].verification.pairs == 6 * PEOPLE


def test_an_interrupted_study_makes_nothing_twice(tmp_path: Path) -> None:
    pipeline = ColorPipeline()
    pipeline.fail_at = 1
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path, pipeline).measure(setting())
    assert pipeline.made == 32  # one chunk
    judge = ColorJudge()
    evaluation = study(tmp_path, pipeline, judge)
    yardsticks = judge.seen
    resumed = evaluation.measure(setting())
    assert pipeline.made == PEOPLE
    assert judge.seen - yardsticks == PEOPLE - 32
    fresh = study(tmp_path / "fresh")
    assert resumed == fresh.measure(setting())


def test_images_of_another_setting_or_size_are_made_anew(tmp_path: Path) -> None:
    pipeline = ColorPipeline()
    study(tmp_path, pipeline).measure(setting())
    study(tmp_path, pipeline).measure(setting(1.0))
    study(tmp_path, pipeline, super_resolution=True).measure(setting())
    assert pipeline.made == 3 * PEOPLE


def test_picture_shows_some_people_with_the_same_seeds(tmp_path: Path) -> None:
    images, similarities = study(tmp_path, None, super_resolution=True).faces(setting(), people=3, seeds=4)
    assert images.shape == (3, 4, 32, 32, 3)
    assert [values.shape for values in similarities] == [(3, 4)]
    np.testing.assert_allclose(similarities[0], 1.0, atol=1e-3)


def test_a_real_pipeline_is_resumed_by_its_receipts(tiny_repository: Path, tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((20, 8)).astype(np.float32)
    write_people(tmp_path / "data", 20)
    targets = load_targets(tmp_path / "data", "sface", 20, seeds=1)
    targets = type(targets)(targets.images, vectors, targets.seeds)
    judge = ColorJudge(independent=True)
    quick = Setting(sampler="dpmpp_2m", steps=1, guidance_scale=1.0)
    with Pipeline.load(tiny_repository, threads=1) as pipeline:
        first = IdentityStudy(pipeline, targets, [judge], Cache(tmp_path)).measure(quick)
        made = {file.name for file in tmp_path.glob("*.npy")}
        assert IdentityStudy(pipeline, targets, [judge], Cache(tmp_path)).measure(quick) == first
        assert {file.name for file in tmp_path.glob("*.npy")} == made
        assert first.measurements[0].similarity.count == 20


def test_sweeps_share_their_common_setting() -> None:
    found = settings_of(["dpmpp_2m"], [1.0, 2.0], [10, 25], at_guidance=2.0, at_steps=25)
    assert [(s.guidance_scale, s.steps) for s in found] == [(2.0, 25), (1.0, 25), (2.0, 10)]
    assert len(settings_of(["ddpm", "ddim"], [1.0, 2.0], [10, 25], 2.0, 25)) == 6
    both = settings_of(["ddim"], [2.0], [10, 25], 2.0, 25, ["uniform", "logsnr"])
    assert [(row.series, row.steps) for row in both] == [
        ("ddim", 25),
        ("ddim", 10),
        ("ddim logsnr", 25),
        ("ddim logsnr", 10),
    ]


def test_altered_picture_is_flipped_blurred_and_brighter() -> None:
    image = np.zeros((1, 64, 64, 3), np.uint8)
    image[:, :, :32] = 100
    (found,) = altered(image)
    assert found[0, -1, 0] == 120 and found[0, 0, 0] == 0
    assert 0 < found[0, 31, 0] < 120  # the edge is soft


def test_unfit_data_are_refused(tmp_path: Path) -> None:
    write_people(tmp_path / "few", 20)
    with pytest.raises(InvalidInputError, match="21 identities: the data set holds out 20"):
        load_targets(tmp_path / "few", "sface", 21, 1)
    write_people(tmp_path / "other", 20, id_vector_model="arcface")
    with pytest.raises(InvalidInputError, match="ID vectors of arcface: this bundle takes those of sface"):
        load_targets(tmp_path / "other", "sface", 20, 1)


def test_cache_keeps_what_its_key_names(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "new")
    first = cache.array({"a": 1, "b": 2}, lambda: np.arange(3))
    np.testing.assert_array_equal(cache.array({"b": 2, "a": 1}, lambda: np.zeros(0)), first)
    assert len(cache.array({"a": 2}, lambda: np.zeros(0))) == 0
    with pytest.raises(ZeroDivisionError):
        cache.array("x", lambda: np.array(1 // 0))
    assert len(list((tmp_path / "new").iterdir())) == 2
