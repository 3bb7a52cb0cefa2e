"""Every `config.pbtxt` is written from the table of served models."""

from __future__ import annotations

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from id3pm.serving.protocol.pbtxt import config_text
from id3pm.serving.protocol.served_models import MODELS


def test_image_tensors_have_the_sizes_of_the_bundle() -> None:
    for name in MODELS:
        text = config_text(name, {"base": 32, "sr": 128})
        parsed = text_format.Parse(text, model_config_pb2.ModelConfig())
        shapes = {tensor.name: list(tensor.dims) for tensor in (*parsed.input, *parsed.output)}
        assert shapes.get("image_64", [32, 32, 3]) == [32, 32, 3]
        assert shapes.get("image", [128, 128, 3]) == [128, 128, 3]
