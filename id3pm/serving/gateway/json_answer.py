"""A `ModelInferResponse` as the body of an HTTP answer: of `infer`, JSON with binary tensors behind it where they were
asked for; of `generate`, plain keys.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from id3pm.serving.gateway.grpc_types import InferResponse
from id3pm.serving.gateway.json_body import ALL_BINARY, BINARY, BINARY_SIZE
from id3pm.serving.gateway.upstream import texts
from id3pm.serving.protocol.served_models import DTYPES


def infer_answer(response: InferResponse, wanted: Mapping[str, Any]) -> tuple[bytes, int | None]:
    """The answer to an `infer` request.

    Args:
        response: `ModelInferResponse`.
        wanted: `outputs` and `parameters` of the request's JSON, which say what is wanted as binary.

    Returns:
        The body, and the bytes of its JSON where binary tensors are behind it.
    """
    everything = wanted.get("parameters", {}).get(ALL_BINARY) is True
    requested = {output["name"]: output.get("parameters", {}) for output in wanted.get("outputs", [])}
    outputs, behind = [], []
    for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        entry = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}
        if requested.get(tensor.name, {}).get(BINARY, everything) is True:
            outputs.append({**entry, "parameters": {BINARY_SIZE: len(raw)}})
            behind.append(raw)
        else:
            outputs.append({**entry, "data": _values(tensor.datatype, raw)})
    head = json.dumps({**_head(response), "outputs": outputs}).encode()
    return b"".join([head, *behind]), len(head) if behind else None


def generate_answer(response: InferResponse) -> bytes:
    """The answer to a `generate` request: each output by name, a single element as itself, several as a flat list."""
    answer = _head(response)
    for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        values = _values(tensor.datatype, raw)
        answer[tensor.name] = values[0] if len(values) == 1 else values
    return json.dumps(answer).encode()


def _head(response: InferResponse) -> dict[str, object]:
    return {
        "model_name": response.model_name,
        "model_version": response.model_version,
        **({"id": response.id} if response.id else {}),
    }


def _values(datatype: str, raw: bytes) -> list[Any]:
    if datatype not in DTYPES:
        return texts(raw)
    values: list[Any] = np.frombuffer(raw, dtype=DTYPES[datatype]).tolist()
    return values
