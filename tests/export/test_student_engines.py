"""A student is built, proven and sampled like any other bundle."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tiny_engines
from click.testing import CliRunner
from tiny_bundle import write_tiny_bundle

from id3pm.config import SamplingOptions
from id3pm.engines.manifest import read_manifest
from id3pm.engines.openvino_engine import why_no_bf16
from id3pm.errors import InvalidOptionError
from id3pm.export import build as build_engines
from id3pm.formats.bundle import write_bundle
from id3pm.pipeline import Pipeline

BASE = dataclasses.replace(tiny_engines.BASE, learn_sigma=False, guidance_range=(1.0, 3.0))
SR = dataclasses.replace(tiny_engines.SR, learn_sigma=False)


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("student")
    teacher = write_tiny_bundle(folder)
    bundle = dataclasses.replace(
        teacher,
        base=BASE,
        base_diffusion=dataclasses.replace(teacher.base_diffusion, student_timesteps=(60, 90)),
        sampling=SamplingOptions(sampler="student", steps=2),
        sr=SR,
        sr_diffusion=dataclasses.replace(teacher.sr_diffusion, student_timesteps=(40,), student_start="low_res"),
        sr_sampling=SamplingOptions(sampler="student", steps=1, guidance_scale=1.0, consistency=1.0),
    )
    networks = [tiny_engines.random_unet(config) for config in (BASE, SR)]
    write_bundle(folder, bundle, *({key: value.numpy() for key, value in one.state_dict().items()} for one in networks))
    return folder


def built(student: Path, repository: Path, precision: str) -> Path:
    for stage in ("base", "sr"):
        where = ["--bundle", str(student), "--repository", str(repository), "--stage", stage]
        result = CliRunner().invoke(build_engines.main, [*where, "--max-batch", "4", "--precision", precision])
        assert result.exit_code == 0, result.output
    return repository


@pytest.fixture(scope="module")
def repository(student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In bf16 where the processor can, which divides the graph in two."""
    precision = "fp32" if why_no_bf16() is not None else "bf16"
    return built(student, tmp_path_factory.mktemp("repository"), precision)


def test_a_student_passes_the_gate_at_its_own_steps(repository: Path) -> None:
    base, sr = (read_manifest(repository / name / "1" / "engine") for name in ("denoiser_64", "super_resolution"))
    assert {row["timestep"] for row in base.parity.forward} == {60, 90}
    assert (base.parity.trajectory["sampler"], base.parity.trajectory["steps"]) == ("student", 2)
    assert (sr.parity.trajectory["sampler"], sr.parity.trajectory["steps"]) == ("student", 1)
    assert base.parity.batch_invariant and sr.parity.batch_invariant


def test_a_students_images_are_a_function_of_seed_and_scale(repository: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with Pipeline.load(repository, threads=1) as pipeline:
        together = pipeline.generate(vectors, [1, 2, 3])
        alone = pipeline.generate(vectors[1], 2)
        assert np.array_equal(together.images[1], alone.images[0])
        assert alone.receipts[0]["stages"]["base"]["options"]["sampler"] == "student"
        other = pipeline.generate_64(vectors[1], 2, guidance_scale=3.0)
        assert not np.array_equal(other, alone.images_64)
        for refused in ({"preset": "fast"}, {"sampler": "ddim"}, {"guidance_scale": 5.0}, {"sr_steps": 2}):
            with pytest.raises(InvalidOptionError, match="student"):
                pipeline.generate(vectors[1], 2, **refused)
