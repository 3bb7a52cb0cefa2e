"""The README's first command on the shipped bundle: real weights, engines and server, and a synthetic portrait."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from id3pm.engines.manifest import read_manifest
from id3pm.formats.bundle import read_bundle, verify
from id3pm.pipeline import Pipeline

# The first test waits for engines, which another process may be building.
pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "bundles" / "demo"
Build = Callable[[Path], subprocess.CompletedProcess[str]]


def test_the_shipped_bundle_is_whole_and_says_how_it_was_trained() -> None:
    verify(BUNDLE)
    bundle = read_bundle(BUNDLE)
    assert bundle.id_vector_model == "sface" and bundle.identity_dim == 128
    assert bundle.training_card
    assert sum(file.stat().st_size for file in BUNDLE.iterdir()) < 40e6


def test_its_engines_carry_their_proof(built: Path) -> None:
    for model in ("denoiser_64", "super_resolution"):
        manifest = read_manifest(built / model / "1" / "engine")
        assert manifest.parity.batch_invariant
        assert max(row["relative_error"] for row in manifest.parity.forward) <= 1e-4
        assert manifest.parity.trajectory["psnr_db"] >= 60


def test_what_is_up_to_date_is_not_built_again(built: Path, build: Build) -> None:
    before = {path: path.stat().st_mtime_ns for path in built.rglob("*") if path.is_file()}
    start = time.monotonic()
    assert "up to date" in build(built).stdout
    assert time.monotonic() - start < 30
    assert before == {path: path.stat().st_mtime_ns for path in built.rglob("*") if path.is_file()}


def test_the_demo_leaves_pictures_that_their_receipts_explain(built: Path, tmp_path: Path) -> None:
    program = [sys.executable, str(ROOT / "demo/run.py"), "--repository", str(built), "--seeds", "2"]
    photo = ROOT / "demo/people/03.png"
    program += ["--photo", str(photo), "--out", str(tmp_path)]
    printed = subprocess.run(program, check=True, timeout=280, capture_output=True, text=True).stdout
    assert "s per image" in printed and "demo.png" in printed
    assert "takes two pictures for one person from 0.4" in printed.replace("\n", " ")
    with Image.open(tmp_path / "demo.png") as sheet:
        assert sheet.width > 3 * 256 and sheet.height > 2 * 256
    with Pipeline.load(built, threads=2) as pipeline:
        vector = pipeline.embed(photo.read_bytes()).embedding
        for seed in range(2):
            with Image.open(tmp_path / f"seed-{seed}.png") as file:
                receipt, image = json.loads(file.text["id3pm"]), np.asarray(file)
            assert receipt["seed"] == seed and receipt["bundle"] == read_bundle(BUNDLE).name
            again = pipeline.generate(vector, seed)
            assert np.array_equal(again.images[0], image), "served and in process must be the same picture"
