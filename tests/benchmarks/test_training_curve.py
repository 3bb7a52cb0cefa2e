"""The curve of a training run: points are added, and drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import training_curve
from id3pm.config import DiffusionConfig, UNetConfig
from id3pm.unet.model import UNet


class PixelJudge:
    """The vector is the mean colour; pictures that are black show no face."""

    name = key = "pixels"
    independent = centred = True

    def embed(self, images: Any) -> Any:
        vectors = images.reshape(len(images), -1, 3).mean(axis=1).astype(np.float32)
        vectors[vectors.sum(axis=1) == 0] = np.nan
        return vectors


def test_similarity_is_to_the_own_person_and_to_strangers() -> None:
    pictures = np.random.default_rng(0).integers(1, 255, (6, 1, 1, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
    images = pictures.copy()
    images[5] = 0
    found = training_curve.similarity(PixelJudge(), images, pictures, None)
    assert found["similarity"] == pytest.approx(1.0, abs=1e-3)
    assert found["strangers"] < 0.2
    assert found["no_face"] == pytest.approx(1 / 6, abs=1e-4)


def test_images_follow_from_vector_and_seed_in_any_company() -> None:
    torch.manual_seed(0)
    config = UNetConfig(
        image_size=16, num_channels=32, num_res_blocks=1, channel_mult=(1, 1), attention_resolutions=(), identity_dim=8
    )
    unet, vectors = UNet(config).eval(), np.eye(8, dtype=np.float32)[:3]
    together = training_curve.images_of(unet, DiffusionConfig(), vectors, [7, 8, 9])
    alone = training_curve.images_of(unet, DiffusionConfig(), vectors[1:2], [8])
    assert np.abs(together[1].astype(int) - alone[0]).max() <= 1


def test_points_are_drawn(tmp_path: Path) -> None:
    known = [
        {"name": name, "images_seen": seen, "sface": {"similarity": 0.5}, "dlib": {"similarity": 0.4}}
        for name, seen in (("demo", 100), ("run", 150), ("run", 200))
    ]
    points, out = tmp_path / "points.json", tmp_path / "curve.png"
    points.write_text(json.dumps(known), encoding="utf-8")
    arguments = ["draw", "--points", str(points), "--out", str(out)]
    result = CliRunner().invoke(training_curve.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert out.read_bytes().startswith(b"\x89PNG")
