"""Clean-up of foreign ONNX graphs: one batched input, constants folded, slow operators rewritten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def fold_constants(model: Any) -> None:
    """Replaces every node that has only constant inputs by its value, and drops unused ones.

    Block-quantised weights (DequantizeLinear and Reshape over int8 constants) become plain fp32. The values are those
    that the quantised graph computes with; onnxruntime would compute them again in every run (SFace 37 instead of 29 ms
    a face), and refuses YuNet's outright.
    """
    import onnx
    from onnx import helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        if not all(name in constants for name in node.input if name):
            kept.append(node)
            continue
        alone = helper.make_graph(
            [node],
            node.name or node.op_type,
            [],
            [helper.make_value_info(name, onnx.TypeProto()) for name in node.output],
            [constants[name] for name in node.input if name],
        )
        values = ReferenceEvaluator(helper.make_model(alone, opset_imports=model.opset_import)).run(None, {})
        for name, value in zip(node.output, values, strict=True):
            constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
    _replace(graph.node, kept)
    used = {name for node in kept for name in node.input}
    _replace(graph.initializer, [tensor for name, tensor in constants.items() if name in used])


def drop_dropout(model: Any) -> None:
    """Removes Dropout nodes, which do nothing in inference."""
    graph = model.graph
    source = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Dropout"}
    kept = [node for node in graph.node if node.op_type != "Dropout"]
    for node in kept:
        _replace(node.input, [source.get(name, name) for name in node.input])
    _replace(graph.node, kept)


def rewrite_prelu(model: Any) -> None:
    """PReLU with slopes s per channel becomes s x + (1 - s) relu(x), both products as 1x1 depthwise convolutions.

    onnxruntime's CPU kernel for PReLU takes half of SFace's time and forces a change of memory layout before and after;
    convolutions stay in the blocked layout of their neighbours. Measured on one core: 29 -> 13.7 ms a face, relative
    difference 1e-6.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type != "PRelu" or len(constants[node.input[1]].dims) < 3:  # those after matrix products are cheap
            nodes.append(node)
            continue
        source, output = node.input[0], node.output[0]
        slope = numpy_helper.to_array(constants[node.input[1]]).reshape(-1, 1, 1, 1)
        linear, rectified = f"{output}_linear", f"{output}_rectified"
        graph.initializer.append(numpy_helper.from_array(slope, f"{linear}_weight"))
        graph.initializer.append(numpy_helper.from_array(1 - slope, f"{rectified}_weight"))
        depthwise: dict[str, Any] = {"group": len(slope), "kernel_shape": [1, 1]}
        nodes += [
            helper.make_node("Relu", [source], [f"{output}_relu"]),
            helper.make_node("Conv", [f"{output}_relu", f"{rectified}_weight"], [rectified], **depthwise),
            helper.make_node("Conv", [source, f"{linear}_weight"], [linear], **depthwise),
            helper.make_node("Add", [rectified, linear], [output]),
        ]
    _replace(graph.node, nodes)
    used = {name for node in nodes for name in node.input}
    _replace(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in used])


def set_interface(model: Any, inputs: Mapping[str, Sequence[int | str]]) -> None:
    """Keeps only the named inputs, with these dimensions; the first axis of every output becomes `N`.

    The exporter listed weights as inputs too, with which onnxruntime does not fold constants. Shapes of intermediate
    values are
    dropped: they were those of one picture of one size.
    """
    graph = model.graph
    _replace(graph.input, [value for value in graph.input if value.name in inputs])
    _replace(graph.value_info, [])
    for value in graph.input:
        _set_dims(value, inputs[value.name])
    for value in graph.output:
        # [N, D] keeps D; [N, anchors, k] has as many anchors as the picture's size gives.
        _, *middle, last = (dim.dim_value for dim in value.type.tensor_type.shape.dim)
        _set_dims(value, ["N", *(f"{value.name}_anchors" for _ in middle), last])


def free_batch_axis(model: Any) -> None:
    """Reshape targets `[1, -1, k]` become `[0, -1, k]`: the batch axis is copied instead of fixed."""
    from onnx import numpy_helper

    targets = {node.input[1] for node in model.graph.node if node.op_type == "Reshape"}
    for tensor in model.graph.initializer:
        if tensor.name in targets:
            batch, *rest = numpy_helper.to_array(tensor).tolist()
            if batch != 1:
                raise ValueError(f"{tensor.name} reshapes to {[batch, *rest]}: expected a batch of 1")
            tensor.CopyFrom(numpy_helper.from_array(np.array([0, *rest], dtype=np.int64), tensor.name))


def _set_dims(value: Any, dims: Sequence[int | str]) -> None:
    for axis, dim in zip(value.type.tensor_type.shape.dim, dims, strict=True):
        if isinstance(dim, str):
            axis.dim_param = dim
        else:
            axis.dim_value = dim


def _replace(repeated: Any, items: Sequence[Any]) -> None:
    """Assigns to a repeated protobuf field, which cannot be assigned to."""
    copies = list(items)
    del repeated[:]
    repeated.extend(copies)
