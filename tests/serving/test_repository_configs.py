"""Every config.pbtxt says exactly what the option table says, so that a typo cannot hide."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from id3pm.serving.protocol.pbtxt import config_text
from id3pm.serving.protocol.served_models import MODELS
from id3pm.serving.protocol.wire import OPTIONS

BASE = {option.name: (f"TYPE_{option.dtype}", (option.length,)) for option in OPTIONS if "base" in option.stages}
SR = {option.name: (f"TYPE_{option.dtype}", (option.length,)) for option in OPTIONS if "sr" in option.stages}
EMBEDDING = {"embedding": ("TYPE_FP32", (-1,))}
PHOTO = {"photo": ("TYPE_STRING", (1,)), "face": ("TYPE_STRING", (1,))}
CONTROL = {"control": ("TYPE_STRING", (-1,))}
IMAGE_64 = {"image_64": ("TYPE_UINT8", (64, 64, 3))}
IMAGE = {"image": ("TYPE_UINT8", (256, 256, 3))}
RECEIPT_64 = {"receipt_64": ("TYPE_STRING", (1,))}
RECEIPT = {"receipt": ("TYPE_STRING", (1,))}
PNG = {"png": ("TYPE_STRING", (1,))}
DEADLINE, DEADLINE_64 = {"deadline": ("TYPE_INT64", (1,))}, {"deadline_64": ("TYPE_INT64", (1,))}
STATUS = {"status": ("TYPE_STRING", (1,))}
TURNED = {"turned": ("TYPE_INT32", (1,))}
FACE_OUTPUTS = {
    **EMBEDDING,
    "id_vector": ("TYPE_FP32", (-1,)),
    "detection": ("TYPE_FP32", (15,)),
    "faces": ("TYPE_INT32", (1,)),
    **TURNED,
    "id_vector_model": ("TYPE_STRING", (1,)),
    **DEADLINE,
    **STATUS,
}

EXPECTED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "face_embedding": ({**PHOTO, **CONTROL}, FACE_OUTPUTS),
    "denoiser_64": (
        {**EMBEDDING, **BASE, **SR, **DEADLINE, **CONTROL},
        {**IMAGE_64, **RECEIPT_64, **DEADLINE_64, **STATUS},
    ),
    "super_resolution": (
        {**IMAGE_64, **RECEIPT_64, **SR, **DEADLINE_64, **CONTROL},
        {**IMAGE, **PNG, **RECEIPT, **STATUS},
    ),
    "id3pm": ({**EMBEDDING, **BASE, **SR}, {**IMAGE, **IMAGE_64, **RECEIPT}),
    "id3pm_photo": ({**PHOTO, **BASE, **SR}, {**IMAGE, **IMAGE_64, **RECEIPT, **EMBEDDING, **TURNED}),
    "id3pm_png": ({**EMBEDDING, **BASE, **SR}, {**PNG, **RECEIPT}),
    "id3pm_photo_png": ({**PHOTO, **BASE, **SR}, {**PNG, **RECEIPT, **TURNED}),
}


def config(name: str) -> Any:
    return text_format.Parse(config_text(name), model_config_pb2.ModelConfig())


def tensors(entries: Any) -> dict[str, Any]:
    return {entry.name: (model_config_pb2.DataType.Name(entry.data_type), tuple(entry.dims)) for entry in entries}


def test_the_repository_holds_these_models_and_no_others() -> None:
    assert set(MODELS) == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_inputs_and_outputs_are_those_of_the_table(name: str) -> None:
    inputs, outputs = EXPECTED[name]
    assert tensors(config(name).input) == inputs
    assert tensors(config(name).output) == outputs


@pytest.mark.parametrize("name", EXPECTED)
def test_every_model_takes_sixteen_rows_and_answers_missing_inputs_itself(name: str) -> None:
    parsed = config(name)
    assert parsed.name == name
    assert parsed.max_batch_size == 16
    assert all(entry.optional for entry in parsed.input)
    assert not parsed.model_transaction_policy.decoupled


@pytest.mark.parametrize("name", [name for name in EXPECTED if name.startswith("id3pm")])
def test_ensembles_pass_every_option_to_the_models_that_take_it(name: str) -> None:
    """A forgotten input_map line would make an option do nothing, silently."""
    parsed = config(name)
    ensemble_inputs = set(tensors(parsed.input))
    produced: set[str] = set()
    for step in parsed.ensemble_scheduling.step:
        model = config(step.model_name)
        renamed = [(key, value) for key, value in (*step.input_map.items(), *step.output_map.items()) if key != value]
        assert renamed in ([], [("embedding", "id_vector")])
        assert set(step.input_map) == set(tensors(model.input)) & (ensemble_inputs | produced)
        assert set(step.output_map) <= set(tensors(model.output))
        produced |= set(step.output_map)
    assert set(tensors(parsed.output)) <= produced
    assert "deadline_64" in produced and ("deadline" in produced) == ("photo" in ensemble_inputs)


@pytest.mark.parametrize("name", ["denoiser_64", "super_resolution"])
def test_no_queue_policy_stalls_the_batcher(name: str) -> None:
    batching = config(name).dynamic_batching
    assert batching == model_config_pb2.ModelDynamicBatching()
    assert config(name).HasField("dynamic_batching")
