"""Every `config.pbtxt` is written from the table of served models."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from id3pm.serving.protocol.pbtxt import config_text, write_configs
from id3pm.serving.protocol.served_models import MODELS

REPOSITORY = Path(__file__).parents[2] / "triton_repo"


@pytest.mark.parametrize("name", MODELS)
def test_the_files_are_those_of_the_table(name: str) -> None:
    assert (REPOSITORY / name / "config.pbtxt").read_text(encoding="utf-8") == config_text(name)


def test_image_tensors_have_the_sizes_of_the_bundle(tmp_path: Path) -> None:
    write_configs(tmp_path, {"base": 32, "sr": 128})
    for name in MODELS:
        parsed = text_format.Parse((tmp_path / name / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
        shapes = {tensor.name: list(tensor.dims) for tensor in (*parsed.input, *parsed.output)}
        assert shapes.get("image_64", [32, 32, 3]) == [32, 32, 3]
        assert shapes.get("image", [128, 128, 3]) == [128, 128, 3]
