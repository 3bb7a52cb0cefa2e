from __future__ import annotations

import dataclasses
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_engines

from id3pm.attributes import encode
from id3pm.engines.manifest import read_manifest
from id3pm.errors import EngineError, EngineMissingError, InvalidInputError, InvalidOptionError
from id3pm.face.stage import FaceStage
from id3pm.pipeline import Pipeline
from id3pm.sampling.receipt import id_vector_sha256, parse_receipt

VECTORS = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def pipeline(tiny_repository: Path) -> Iterator[Pipeline]:
    with Pipeline.load(tiny_repository, threads=1) as pipeline:
        yield pipeline


def test_faces_come_in_the_order_they_were_asked_for(pipeline: Pipeline) -> None:
    seeds = [3, 1, 4, 1, 5]
    together = pipeline.generate(VECTORS, seeds)
    assert together.images.shape == (5, 32, 32, 3) and together.images.dtype == np.uint8
    assert together.images_64.shape == (5, 16, 16, 3) and together.images_64.dtype == np.uint8
    for index in (4, 0, 2):
        alone = pipeline.generate(VECTORS[index], seeds[index])
        np.testing.assert_array_equal(alone.images[0], together.images[index])
        np.testing.assert_array_equal(alone.images_64[0], together.images_64[index])
    assert [receipt["seed"] for receipt in together.receipts] == seeds


def test_single_vector_goes_with_all_seeds_and_single_seed_with_all_vectors(pipeline: Pipeline) -> None:
    by_seed = pipeline.generate(VECTORS[0], np.array([7, 8]))
    by_vector = pipeline.generate(VECTORS[:2].tolist(), 7)
    assert len(by_seed.images) == len(by_vector.images) == 2
    np.testing.assert_array_equal(by_seed.images[0], by_vector.images[0])
    assert (by_seed.images[0] != by_seed.images[1]).any()
    assert (by_vector.images[0] != by_vector.images[1]).any()


def test_without_seeds_random_ones_are_drawn_and_named_by_the_receipts(pipeline: Pipeline) -> None:
    made = pipeline.generate(VECTORS[:2])
    seeds = [receipt["seed"] for receipt in made.receipts]
    assert len(set(seeds)) == 2 and all(0 <= seed < 2**32 for seed in seeds)
    np.testing.assert_array_equal(pipeline.generate(VECTORS[:2], seeds).images, made.images)
    assert pipeline.generate(VECTORS[0]).receipts[0]["seed"] not in seeds


def test_options_reach_their_stage(pipeline: Pipeline) -> None:
    plain = pipeline.generate(VECTORS[0], 1)
    other_sr = pipeline.generate(VECTORS[0], 1, sr_steps=5)
    other_base = pipeline.generate(VECTORS[0], 1, guidance_scale=4.0)
    with_attributes = pipeline.generate(VECTORS[0], 1, attributes=[1.0] * 11)
    np.testing.assert_array_equal(plain.images_64, other_sr.images_64)
    assert (plain.images != other_sr.images).any()
    assert (plain.images_64 != other_base.images_64).any()
    assert (plain.images_64 != with_attributes.images_64).any()
    stages = other_sr.receipts[0]["stages"]
    assert stages["base"]["options"]["steps"] == 4 and stages["sr"]["options"]["steps"] == 5


def test_attributes_by_name_and_by_vector_are_the_same_for_all_images_or_one_each(pipeline: Pipeline) -> None:
    happy, sad = {"emotion": "happy", "yaw": -20}, {"emotion": "sad"}
    vectors = np.stack([encode(values, 1) for values in (happy, sad)])
    expected = pipeline.generate_64(VECTORS[:2], 5, attributes=vectors)
    np.testing.assert_array_equal(pipeline.generate_64(VECTORS[:2], 5, attributes=[happy, sad]), expected)
    np.testing.assert_array_equal(pipeline.generate_64(VECTORS[0], 5, attributes=happy)[0], expected[0])
    assert (pipeline.generate_64(VECTORS[1], 5, attributes=happy)[0] != expected[1]).any()
    (receipt,) = pipeline.receipts(VECTORS[0], 5, attributes=happy)
    assert receipt["stages"]["base"]["options"]["attributes"] == vectors[0].tolist()


def test_attributes_that_do_not_fit_are_refused(pipeline: Pipeline) -> None:
    with pytest.raises(InvalidInputError, match=r"attributes of shape \[2, 11\] for 3 images"):
        pipeline.generate_64(VECTORS[:3], 5, attributes=np.zeros((2, 11)))
    with pytest.raises(InvalidInputError, match="yaw=100: must be a number from -90 to 90 degrees"):
        pipeline.generate_64(VECTORS[:1], 5, attributes={"yaw": 100})


def test_receipt_makes_the_same_image_again(pipeline: Pipeline) -> None:
    asked = {"steps": 6, "sampler": "ddim", "eta": 0.3, "guidance_scale": 1.7, "attributes": [0.1] * 11, "sr_steps": 2}
    asked["sr_consistency"] = 0.5
    first = pipeline.generate(VECTORS[1], 99, **asked)
    receipt = parse_receipt(json.dumps(first.receipts[0]))
    sr = receipt["stages"]["sr"]["options"]
    again = pipeline.generate(
        VECTORS[1],
        receipt["seed"],
        **receipt["stages"]["base"]["options"],
        **{f"sr_{name}": sr[name] for name in ("sampler", "steps", "eta", "consistency")},
    )
    np.testing.assert_array_equal(again.images, first.images)
    assert again.receipts == first.receipts
    assert receipt["id_vector_sha256"] == id_vector_sha256(VECTORS[1])
    assert receipt["bundle"] == "tiny"
    assert receipt["stages"]["base"]["engine"].startswith("onnxruntime")


def test_each_stage_alone_makes_the_same_images(pipeline: Pipeline) -> None:
    asked = {"guidance_scale": 1.5, "attributes": [0.5] * 11}
    both = pipeline.generate(VECTORS[:2], [4, 5], **asked)
    np.testing.assert_array_equal(pipeline.enlarge(both.images_64, [4, 5]), both.images)
    few = pipeline.enlarge(both.images_64[:1], 4, sr_steps=1)
    assert few.shape == both.images[:1].shape and (few != both.images[:1]).any()
    np.testing.assert_array_equal(pipeline.generate_64(VECTORS[:2], [4, 5], **asked), both.images_64)
    with pytest.raises(
        InvalidOptionError, match=r"unknown option sr_steps; did you mean steps\? choose from preset, sampler"
    ):
        pipeline.generate_64(VECTORS[0], 1, sr_steps=2)


def test_receipts_are_known_before_the_images(pipeline: Pipeline) -> None:
    asked = {"steps": 2, "attributes": [0.5] * 11}
    assert (
        pipeline.receipts(VECTORS, 3, sr_steps=2, **asked)
        == pipeline.generate(VECTORS, 3, sr_steps=2, **asked).receipts
    )
    (alone,) = pipeline.receipts(VECTORS[0], 3, super_resolution=False, **asked)
    assert set(alone["stages"]) == {"base"}
    assert alone["stages"]["base"] == pipeline.receipts(VECTORS[0], 3, **asked)[0]["stages"]["base"]
    with pytest.raises(InvalidOptionError, match="sr_steps"):
        pipeline.receipts(VECTORS[0], 3, super_resolution=False, sr_steps=2)


@pytest.mark.parametrize(
    ("vectors", "seeds", "options", "message"),
    [
        (VECTORS[:, :7], 1, {}, r"identity has shape \[7\]; this model takes \[8\]"),
        (np.full(8, np.nan), 1, {}, "not finite"),
        (["a"] * 8, 1, {}, "embeddings: expected numbers"),
        (VECTORS[:3], [1, 2], {}, r"embeddings of shape \[3, 8\] with 2 seeds"),
        (VECTORS[:0], [], {}, r"embeddings of shape \[0, 8\] with 0 seeds"),
        (VECTORS[None], 1, {}, r"embeddings of shape \[1, 5, 8\]"),
        (VECTORS[0], -1, {}, "seed=-1"),
        (VECTORS[0], 0.5, {}, "seed=0.5"),
        (VECTORS[0], 1, {"attributes": [1.0]}, r"attributes has shape \[1\]"),
    ],
)
def test_bad_input_is_refused_with_the_rule(
    pipeline: Pipeline, vectors: Any, seeds: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        pipeline.generate(vectors, seeds, **options)


@pytest.mark.parametrize("options", [{"steps": 0}, {"steps": 101}, {"colour": 1}, {"sr_sampler": "euler"}])
def test_bad_option_is_refused_and_the_pipeline_lives_on(pipeline: Pipeline, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptionError):
        pipeline.generate(VECTORS, 1, **options)
    assert len(pipeline.generate(VECTORS[0], 1).images) == 1


@pytest.fixture(scope="module")
def student(tiny_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """The tiny bundle as a student of two steps, and of one in super-resolution."""
    folder = tmp_path_factory.mktemp("student") / "repository"
    shutil.copytree(tiny_repository, folder)
    for model, taught in (("denoiser_64", (40, 80)), ("super_resolution", (40,))):
        manifest = read_manifest(folder / model / "1/engine")
        tiny_engines.rewrite_manifest(
            folder / model / "1/engine",
            manifest,
            diffusion=dataclasses.replace(manifest.diffusion, student_timesteps=taught),
            sampling=dataclasses.replace(manifest.sampling, sampler="student", steps=len(taught), eta=0.0),
        )
    with Pipeline.load(folder, threads=1) as pipeline:
        yield pipeline


def test_a_check_refuses_what_generating_would_by_its_public_name(pipeline: Pipeline, student: Pipeline) -> None:
    pipeline.check(steps=100, sr_steps=2, preset="fast", guidance_scale=3.0)
    student.check(steps=1)
    student.check(super_resolution=False, steps=2)
    for refusing, options, message in (
        (pipeline, {"steps": 101}, "^steps=101: this model has 100 training steps"),
        (pipeline, {"sr_steps": 101}, "^sr_steps=101: this model has 100 training steps"),
        (pipeline, {"sr_sampler": "student"}, "^sr_sampler='student': this bundle is no student"),
        (pipeline, {"super_resolution": False, "sr_steps": 1}, "unknown option sr_steps"),
        (student, {"preset": "fast"}, "^sampler='.*': this bundle is a student.* and no preset"),
        (student, {"sr_steps": 6}, "^sr_steps=6: this bundle is a student of 1"),
    ):
        with pytest.raises(InvalidOptionError, match=message):
            refusing.check(**options)  # type: ignore[arg-type]
    with pytest.raises(InvalidOptionError, match="student of 2"):
        student.receipts(VECTORS, 1, steps=3)


def test_failing_engine_raises_and_stops_the_rest(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(inputs: object) -> None:
        raise RuntimeError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(pipeline._sr.engine, "run", broken)
        with pytest.raises(EngineError, match="RuntimeError"):
            pipeline.generate(VECTORS, 1)
    assert len(pipeline.generate(VECTORS, 1).images) == 5


def test_embed_uses_the_face_stage_of_the_repository(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineMissingError):
        pipeline.embed(b"photo")
    loaded: list[Path] = []

    def load(folder: Path, threads: int | None = None) -> SimpleNamespace:
        loaded.append(folder)
        return SimpleNamespace(id_vector_model="sface", embed=lambda photo, face: (photo, face))

    with monkeypatch.context() as patch:
        patch.setattr(FaceStage, "load", load)
        assert pipeline.embed(b"photo") == (b"photo", "largest")
        assert pipeline.embed(b"photo", face="only") == (b"photo", "only")
    assert [folder.parts[-3:] for folder in loaded] == [("face_embedding", "1", "engine")]
    del pipeline.face_stage


def test_face_stage_of_another_method_is_refused(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    other = SimpleNamespace(id_vector_model="buffalo_l")
    monkeypatch.setattr(FaceStage, "load", lambda folder, threads=None: other)
    with pytest.raises(EngineError, match="gives buffalo_l ID vectors, the U-Net takes sface"):
        pipeline.embed(b"photo")


def test_missing_engine_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(EngineMissingError, match=r"built in .*denoiser_64/1/engine; run: id3pm build"):
        Pipeline.load(tmp_path)


def test_engines_of_different_stages_cannot_be_swapped(tiny_repository: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_repository, tmp_path / "repository")
    for model, other in (("denoiser_64", "super_resolution"), ("super_resolution", "denoiser_64")):
        folder = tmp_path / "repository" / model / "1/engine"
        shutil.rmtree(folder)
        shutil.copytree(tiny_repository / other / "1/engine", folder)
    with pytest.raises(EngineError, match="stage sr lies where base belongs"):
        Pipeline.load(tmp_path / "repository")


def test_engines_of_different_bundles_are_refused(tiny_repository: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_repository, tmp_path / "repository")
    folder = tmp_path / "repository/super_resolution/1/engine"
    manifest = read_manifest(folder)
    other = dataclasses.replace(manifest.bundle, name="other", bundle_json_sha256="2" * 64)
    tiny_engines.rewrite_manifest(folder, manifest, bundle=other)
    with pytest.raises(EngineError, match=r"bundles tiny \(1+\) and other \(2+\)"):
        Pipeline.load(tmp_path / "repository")


def test_close_ends_all_threads(tiny_repository: Path) -> None:
    before = set(threading.enumerate())
    pipeline = Pipeline.load(tiny_repository, threads=1)
    assert len(set(threading.enumerate()) - before) == 2
    pipeline.close()
    assert not set(threading.enumerate()) - before
