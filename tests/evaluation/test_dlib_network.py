"""dlib's network in onnxruntime gives dlib's vectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from id3pm.errors import InvalidInputError
from id3pm.evaluation.dlib_judge import _models_folder
from id3pm.evaluation.dlib_network import CHIP_SIZE, DlibNetwork

dlib = pytest.importorskip("dlib", reason="the extra evaluate")
NAME = "dlib_face_recognition_resnet_model_v1.dat"


def test_vectors_are_those_of_dlib() -> None:
    file = _models_folder() / NAME
    theirs, ours = dlib.face_recognition_model_v1(str(file)), DlibNetwork(file)
    ramp = np.linspace(0, 255, CHIP_SIZE).astype(np.uint8)
    smooth = np.stack(np.broadcast_arrays(ramp[:, None], ramp[None], np.uint8(90)), axis=-1)
    noise = np.random.default_rng(0).integers(0, 256, smooth.shape, np.uint8)
    for chip in (smooth, noise, np.zeros_like(smooth), smooth // 2 + noise // 2):
        wanted = np.array(theirs.compute_face_descriptor(chip), np.float32)
        found = ours.describe(chip)
        assert found.dtype == np.float32 and np.linalg.norm(wanted) > 0.5
        assert np.linalg.norm(found - wanted) < 1e-5  # a person's limit is 0.6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: b"", "no con_4"),
        (lambda data: data[:-1000], "fc_2 has 32768 numbers"),
        (lambda data: data[: data.index(b"con_4") + 7], "con_4 has .* numbers"),
        (lambda data: data.replace(b"affine_", b"bottom_", 1), "no affine_"),
    ],
    ids=["empty", "cut", "cut in the first layer", "another layer"],
)
def test_a_damaged_file_is_refused(change: Callable[[bytes], bytes], words: str, tmp_path: Path) -> None:
    data = (_models_folder() / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(change(data))
    with pytest.raises(InvalidInputError, match=words):
        DlibNetwork(tmp_path / NAME)
