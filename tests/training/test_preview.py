"""Previews of a training run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from id3pm.formats.images import GENERATED_XMP, XMP_KEY
from id3pm.training.preview import save_picture


def test_a_preview_is_marked_as_generated(tmp_path: Path) -> None:
    save_picture(tmp_path / "preview.png", np.zeros((8, 16, 3), np.uint8), scale=2)
    with Image.open(tmp_path / "preview.png") as image:
        assert image.size == (32, 16) and image.info[XMP_KEY] == GENERATED_XMP
