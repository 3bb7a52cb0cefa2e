"""Checks after parsing, layer by layer, that a TensorRT network computes in the types of its precision.

A strongly typed network is built as it is typed, so this holds for the plan; the plan itself can be inspected only
where its GPU is.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from id3pm.errors import EngineError

HALF = {"fp16": "HALF", "bf16": "BF16", "int8": "HALF"}
"""Name of the `tensorrt.DataType` of the layers that do the work; in `fp32` it is that of all others, too."""
FULL = "FLOAT"
CHECKED = ("CONVOLUTION", "MATRIX_MULTIPLY", "NORMALIZATION", "SOFTMAX", "UNARY")


def check_layers(network: Any, precision: str) -> dict[str, int]:
    """Compares the types of inputs and outputs of all layers that matter with what `precision` promises.

    Convolutions but the last, and products of two activations (attention), are in half precision; group norm, softmax,
    sine and cosine, linear layers (products with constants) and the last convolution are in fp32, like all inputs and
    outputs of the network.

    Args:
        network: A parsed `tensorrt.INetworkDefinition`.
        precision: `fp32`, `fp16`, `bf16`, or `int8`, which is `fp16` with convolutions between QUANTIZE and DEQUANTIZE.

    Returns:
        How many layers of each kind and type there are, such as `{"CONVOLUTION HALF": 65, ...}`.

    Raises:
        EngineError: A layer has another type, or nothing is in half precision.
    """
    half = HALF.get(precision, FULL)
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    constants = {layer.get_output(0).name for layer in layers if layer.type.name == "CONSTANT"}
    outputs = {network.get_output(index).name for index in range(network.num_outputs)}
    found: Counter[str] = Counter()
    wrong = []
    for layer in layers:
        kind = layer.type.name
        if kind == "QUANTIZE":
            found[f"QUANTIZE {layer.get_output(0).dtype.name}"] += 1
        if kind not in CHECKED:
            continue
        inputs = [layer.get_input(index) for index in range(layer.num_inputs)]
        tensors = [tensor for tensor in (*inputs, layer.get_output(0)) if tensor is not None]
        wanted = half if _does_the_work(kind, tensors, constants, outputs) else FULL
        types = {tensor.dtype.name for tensor in tensors}
        found[f"{kind} {wanted}"] += 1
        if types != {wanted}:
            wrong.append(f"{layer.name} ({kind}) is {' and '.join(sorted(types))}, not {wanted}")
    ends = [network.get_input(index) for index in range(network.num_inputs)]
    ends += [network.get_output(index) for index in range(network.num_outputs)]
    wrong += [f"{tensor.name} is {tensor.dtype.name}, not {FULL}" for tensor in ends if tensor.dtype.name != FULL]
    if not found[f"CONVOLUTION {half}"]:
        wrong.append(f"no convolution is {half}")
    if (precision == "int8") != bool(found["QUANTIZE INT8"]):
        wrong.append(f"{found['QUANTIZE INT8']} tensors are quantised")
    if wrong:
        raise EngineError(f"the network is not {precision}: {'; '.join(wrong[:5])} ({len(wrong)} in all)")
    return {name: count for name, count in sorted(found.items()) if count}


def _does_the_work(kind: str, tensors: list[Any], constants: set[str], outputs: set[str]) -> bool:
    if kind == "CONVOLUTION":
        return tensors[-1].name not in outputs
    return kind == "MATRIX_MULTIPLY" and not any(tensor.name in constants for tensor in tensors)
