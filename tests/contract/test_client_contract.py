"""The client's contract against the configurations that Triton reads; test_generated_client.py keeps it fresh."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from id3pm.serving.protocol import wire
from id3pm.serving.protocol.pbtxt import config_text
from id3pm_client import AsyncClient
from id3pm_client import _contract as contract

README = Path(__file__).parents[2] / "client/README.md"

DATATYPES = {"TYPE_STRING": "BYTES"}
# What the client decodes by position or turns into pictures.
SHAPES = {
    "image": (256, 256, 3),
    "image_64": (64, 64, 3),
    "detection": (contract.DETECTION_LENGTH,),
    "control": (-1,),
    "embedding": (-1,),
    "attributes": (-1,),
}


def config(model: str) -> Any:
    return text_format.Parse(config_text(model), model_config_pb2.ModelConfig())


def datatype(tensor: Any) -> str:
    name = model_config_pb2.DataType.Name(tensor.data_type)
    return DATATYPES.get(name, name.removeprefix("TYPE_"))


@pytest.mark.parametrize("model", contract.MODELS)
def test_the_models_have_the_tensors_that_the_client_uses(model: str) -> None:
    served, used = config(model), contract.MODELS[model]
    for tensors, names in ((served.input, used.inputs), (served.output, used.outputs)):
        found = {tensor.name: (datatype(tensor), tuple(tensor.dims)) for tensor in tensors}
        expected = {name: (kind, SHAPES.get(name, (1,))) for name, kind in names.items()}
        assert {name: found.get(name) for name in expected} == expected


@pytest.mark.parametrize("model", contract.MODELS)
def test_the_client_sends_all_that_the_models_need(model: str) -> None:
    needed = {tensor.name for tensor in config(model).input if not tensor.optional}
    assert needed <= set(contract.MODELS[model].inputs)


def test_the_client_documents_every_option() -> None:
    docstring, readme = inspect.getdoc(AsyncClient.generate) or "", README.read_text(encoding="utf-8")
    for name in set(contract.Options.__annotations__) - {
        "attribute_values"
    }:  # what the wire has for names in `attributes`
        assert re.search(rf"\b{name}\b", docstring.partition("**options:")[2]), name
        assert f"`{name}`" in readme, name


def test_the_client_uses_the_servers_control_operations() -> None:
    assert {"cancel", "ping", "describe"} <= set(wire.CONTROL_OPS)
    assert {model for model in contract.MODELS if "control" in contract.MODELS[model].inputs} == set(contract.STAGES)
    assert all("control" in {tensor.name for tensor in config(stage).input} for stage in contract.STAGES)
