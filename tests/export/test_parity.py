from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import tiny_engines
from PIL import Image
from rich.console import Console

from id3pm.engines.arrays import HOST, Arrays
from id3pm.engines.inputs import EngineInputs, FloatArray, output_shape
from id3pm.engines.manifest import Manifest
from id3pm.export.parity import compare as parity
from id3pm.export.parity import identity as repository_faces
from id3pm.export.parity import report as parity_report
from id3pm.export.parity.thresholds import thresholds
from id3pm.face.stage import FaceStage


class NumpyEngine:
    """A stand-in for a U-Net: smooth in all inputs, different for every row, and wrong in the way a test asks for."""

    description = "numpy"
    max_batch = 4
    arrays: Arrays = HOST
    config = tiny_engines.BASE

    def __init__(self, fault: str = "", size: float = 0.0) -> None:
        self.fault, self.size = fault, size

    def run(self, inputs: EngineInputs) -> FloatArray:
        rows = len(inputs["x"])
        level = (inputs["timesteps"] / 100 + inputs["identity"].sum(1) / 8 - inputs["attributes"].mean(1) / 4)[
            :, None, None, None
        ]
        output = np.tanh(np.concatenate([inputs["x"] + level, -inputs["x"] * level], axis=1)).astype(np.float32)
        assert output.shape == output_shape(self.config, rows)
        if self.fault == "scale":
            output *= np.float32(1 + self.size)
        elif self.fault == "batch":
            output += np.float32(self.size * (rows - 1))
        elif self.fault == "position":
            output += np.float32(self.size) * np.arange(rows, dtype=np.float32)[:, None, None, None]
        elif self.fault == "late nan" and (inputs["timesteps"] == 99).any():
            output[-1, 0, 0, 0] = np.nan
        elif self.fault == "unconditional":
            output[~inputs["identity"].any(axis=1)] *= np.float32(1 + self.size)
        return output

    def close(self) -> None: ...


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    file = tmp_path / "model.onnx"
    file.touch()
    manifest = tiny_engines.manifest_of(tiny_engines.BASE, file)
    limits = dataclasses.asdict(thresholds("onnx-cpu", "fp32"))
    return dataclasses.replace(manifest, parity=dataclasses.replace(manifest.parity, thresholds=limits))


def test_an_equal_engine_passes_with_the_highest_marks(manifest: Manifest) -> None:
    measured = parity.compare(NumpyEngine(), NumpyEngine(), manifest)
    assert parity_report.misses(measured) == []
    assert [row["max_abs_error"] for row in measured.forward] == [0.0] * 10
    assert measured.trajectory["psnr_db"] == parity.MAX_PSNR
    assert measured.batch_invariant is True


@pytest.mark.parametrize(
    ("fault", "size", "expected"),
    [
        ("scale", 1e-3, "relative error 0.001 of a forward pass"),
        ("scale", 0.2, "PSNR"),
        ("unconditional", 1e-3, "relative error"),
        ("batch", 1e-6, "depends on the batch"),
        ("position", 1e-6, "depends on the batch"),
        ("late nan", 0.0, "relative error nan"),
        ("late nan", 0.0, "PSNR nan"),
    ],
)
def test_every_kind_of_wrong_engine_misses(manifest: Manifest, fault: str, size: float, expected: str) -> None:
    measured = parity.compare(NumpyEngine(), NumpyEngine(fault, size), manifest)
    assert any(expected in miss for miss in parity_report.misses(measured)), parity_report.misses(measured)
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(parity_report.table("engine", measured))
    assert "MISS" in console.export_text()


def test_the_measured_error_is_the_error(manifest: Manifest) -> None:
    measured = parity.compare(NumpyEngine(), NumpyEngine("scale", 1e-5), manifest)
    assert parity_report.misses(measured) == []
    for row in measured.forward:
        assert row["relative_error"] == pytest.approx(1e-5, rel=0.05)


def test_a_gpu_engine_may_depend_on_the_batch_but_that_is_recorded(manifest: Manifest) -> None:
    limits = dataclasses.asdict(thresholds("onnx-cuda", "fp32", "fast"))
    manifest = dataclasses.replace(manifest, parity=dataclasses.replace(manifest.parity, thresholds=limits))
    measured = parity.compare(NumpyEngine(), NumpyEngine("batch", 1e-6), manifest)
    assert measured.batch_invariant is False
    assert parity_report.misses(measured) == []


def test_exact_buckets_must_give_equal_bits_and_fast_ones_say_how_far_they_are_from_it(manifest: Manifest) -> None:
    exact = dataclasses.asdict(thresholds("tensorrt", "fp32", "exact"))
    manifest = dataclasses.replace(manifest, parity=dataclasses.replace(manifest.parity, thresholds=exact))
    faulty = NumpyEngine("batch", 1e-3)
    assert any(
        "depends on the batch" in miss for miss in parity_report.misses(parity.compare(faulty, faulty, manifest))
    )
    fast = dataclasses.asdict(thresholds("tensorrt", "fp32", "fast"))
    manifest = dataclasses.replace(
        manifest, buckets="fast", parity=dataclasses.replace(manifest.parity, thresholds=fast)
    )
    company = parity.compare(faulty, faulty, manifest).company
    assert company["relative_error"] > 1e-4 and company["rows"] == [1, 4]
    assert 20 < company["psnr_db"] < parity.MAX_PSNR and 0 <= company["max_levels"] < 30
    same = parity.compare(NumpyEngine(), NumpyEngine(), manifest)
    assert same.company == {"rows": [1, 4], "relative_error": 0.0, "psnr_db": parity.MAX_PSNR, "max_levels": 0}
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(parity_report.table("engine", same))
    assert "an image alone and among others" in console.export_text()


def test_the_person_is_compared_by_the_landmarks_of_the_reference(face_folder: Path) -> None:
    stage = FaceStage.load(face_folder)
    with Image.open(repository_faces.PHOTOGRAPH) as photo:
        box = (130, 0, 330, 200)  # the head
        face = np.asarray(photo.convert("RGB").crop(box).resize((64, 64), Image.Resampling.LANCZOS), np.float32)
    expected = (face.transpose(2, 0, 1) / 127.5 - 1)[None]
    same = parity.compare_identity(expected, expected.copy(), stage)
    assert same == {"identity_cosine": pytest.approx(1.0, abs=1e-5), "identity_images": 1}
    noise = np.random.default_rng(0).standard_normal(expected.shape).astype(np.float32)
    other = parity.compare_identity(expected, np.clip(expected + 0.5 * noise, -1, 1), stage)
    assert other["identity_cosine"] < 0.9
    broken = parity.compare_identity(expected, np.full_like(expected, np.nan), stage)
    assert np.isnan(broken["identity_cosine"])
    assert "no face" in parity.compare_identity(np.zeros_like(expected), expected, stage)["identity_not_compared"]


@pytest.mark.parametrize("cosine", [0.9, float("nan")])
def test_another_person_misses(manifest: Manifest, cosine: float) -> None:
    measured = parity.compare(NumpyEngine(), NumpyEngine(), manifest)
    other = dataclasses.replace(measured, trajectory=measured.trajectory | {"identity_cosine": cosine})
    assert any("identity cosine" in miss for miss in parity_report.misses(other))
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(parity_report.table("engine", other))
    assert "MISS" in console.export_text()
