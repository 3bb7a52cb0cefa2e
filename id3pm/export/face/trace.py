"""A convolutional network's forward pass as an ONNX graph, node by node.

FR networks and MTCNN are plain chains of a dozen operators. PyTorch's exporter takes half a minute for one and traces
shapes into it; written here, the graph has one node per layer with the layer's name, and runs with any batch size. A
layer that is not in the tables is an error, and the caller compares the graph with the module.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.fx
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.fx.passes.shape_prop import ShapeProp

from id3pm.errors import EngineError

OPSET = 18


class _Graph:
    """Nodes and weights as they are added."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []

    def constant(self, name: str, value: Tensor | Sequence[int] | Sequence[float]) -> str:
        """Adds a weight; its name."""
        array = value.detach().numpy() if isinstance(value, Tensor) else np.array(value)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> None:
        """Adds an operator with one output."""
        self.nodes.append(helper.make_node(kind, list(inputs), [output], output, **attributes))


def trace(network: nn.Module, sides: tuple[int | str, int | str], outputs: Sequence[str]) -> Any:
    """The network as an ONNX model: input `input` [N, 3, *sides], outputs by these names.

    Args:
        network: In evaluation mode.
        sides: Height and width, or the names of free ones.
        outputs: In the order of the module's.

    Raises:
        EngineError: It has a layer or a function that is not in the tables here.
    """
    traced = torch.fx.symbolic_trace(network)
    example = torch.zeros(1, 3, *(side if isinstance(side, int) else 48 for side in sides))
    with torch.no_grad():
        ShapeProp(traced).propagate(example)
    graph, names = _Graph(), dict[torch.fx.Node, str]()
    results: Sequence[torch.fx.Node] = ()
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            names[node] = "input"
        elif node.op == "output":
            (answer,) = node.args
            results = answer if isinstance(answer, (tuple, list)) else (answer,)
        else:
            names[node] = node.name
            _write(graph, network, node, names)
    for name, result in zip(outputs, results, strict=True):
        graph.node("Identity", [names[result]], name)
    return helper.make_model(
        helper.make_graph(
            graph.nodes,
            type(network).__name__,
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, *sides])],
            [
                helper.make_tensor_value_info(
                    name, TensorProto.FLOAT, ["N", _shape(result)[1], *[None] * (len(_shape(result)) - 2)]
                )
                for name, result in zip(outputs, results, strict=True)
            ],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=10,
        producer_name="id3pm",
    )


def _write(graph: _Graph, network: nn.Module, node: torch.fx.Node, names: Mapping[torch.fx.Node, str]) -> None:
    if node.op == "call_module":
        module = network.get_submodule(str(node.target))
        write: Callable[..., None] | None = _LAYERS.get(type(module))
        what: Any = type(module).__name__
        (source,) = node.args
        assert isinstance(source, torch.fx.Node)
        arguments: Any = (module, names[source])
        if isinstance(module, nn.PReLU):
            arguments += (len(_shape(source)),)
    else:
        what = getattr(node.target, "__name__", node.target)
        write = _FUNCTIONS.get(what)
        arguments = ([_named(item, names) for item in node.args], node.kwargs)
    if write is None:
        raise EngineError(
            f"{node.name} is {what}, which the FR models' exporter does not know: add it to face_trace.py"
        )
    write(graph, names[node], *arguments)


def _shape(node: torch.fx.Node) -> Sequence[int]:
    shape: Sequence[int] = node.meta["tensor_meta"].shape
    return shape


def _named(item: Any, names: Mapping[torch.fx.Node, str]) -> Any:
    if isinstance(item, torch.fx.Node):
        return names[item]
    return [_named(each, names) for each in item] if isinstance(item, (list, tuple)) else item


def _conv(graph: _Graph, output: str, layer: nn.Conv2d, x: str) -> None:
    inputs = [x, graph.constant(f"{output}.weight", layer.weight)]
    if layer.bias is not None:
        inputs.append(graph.constant(f"{output}.bias", layer.bias))
    assert layer.groups == 1 and set(layer.dilation) == {1} and not isinstance(layer.padding, str)
    graph.node("Conv", inputs, output, strides=list(layer.stride), pads=[*layer.padding, *layer.padding])


def _batch_norm(graph: _Graph, output: str, layer: nn.BatchNorm2d, x: str) -> None:
    assert layer.running_mean is not None and layer.running_var is not None
    ones = torch.ones_like(layer.running_mean)
    weights = {
        "weight": ones if layer.weight is None else layer.weight,
        "bias": 0 * ones if layer.bias is None else layer.bias,
        "mean": layer.running_mean,
        "var": layer.running_var,
    }
    inputs = [graph.constant(f"{output}.{name}", value) for name, value in weights.items()]
    graph.node("BatchNormalization", [x, *inputs], output, epsilon=layer.eps)


def _prelu(graph: _Graph, output: str, layer: nn.PReLU, x: str, rank: int) -> None:
    slope = layer.weight.reshape(-1, *[1] * (rank - 2))
    graph.node("PRelu", [x, graph.constant(f"{output}.slope", slope)], output)


def _linear(graph: _Graph, output: str, layer: nn.Linear, x: str) -> None:
    inputs = [x, graph.constant(f"{output}.weight", layer.weight)]
    if layer.bias is not None:
        inputs.append(graph.constant(f"{output}.bias", layer.bias))
    graph.node("Gemm", inputs, output, transB=1)


def _max_pool(graph: _Graph, output: str, x: str, size: int, stride: int, ceil: bool) -> None:
    graph.node("MaxPool", [x], output, kernel_shape=[size] * 2, strides=[stride] * 2, ceil_mode=int(ceil))


def _same(graph: _Graph, output: str, layer: nn.Module, x: str) -> None:
    graph.node("Identity", [x], output)


_LAYERS: Mapping[type[nn.Module], Callable[..., None]] = {
    nn.Conv2d: _conv,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.PReLU: _prelu,
    nn.Linear: _linear,
    nn.MaxPool2d: lambda graph, output, layer, x: _max_pool(graph, output, x, layer.kernel_size, layer.stride, False),
    nn.Sigmoid: lambda graph, output, layer, x: graph.node("Sigmoid", [x], output),
    nn.Flatten: lambda graph, output, layer, x: graph.node("Flatten", [x], output),
    nn.Identity: _same,
    nn.Dropout: _same,
}
"""(graph, name of the output, layer, name of the input)."""


def _normalize(graph: _Graph, output: str, given: list[Any], keywords: Mapping[str, Any]) -> None:
    assert keywords["dim"] == 1
    norm, least = f"{output}.norm", f"{output}.least"
    graph.node("ReduceL2", [given[0], graph.constant(f"{output}.axes", [1])], norm)
    graph.node("Max", [norm, graph.constant(f"{output}.epsilon", [1e-12])], least)
    graph.node("Div", [given[0], least], output)


def _interpolate(graph: _Graph, output: str, given: list[Any], keywords: Mapping[str, Any]) -> None:
    assert keywords.get("mode", "nearest") == "nearest"
    scales = graph.constant(f"{output}.scales", [1.0, 1.0, *[float(keywords["scale_factor"])] * 2])
    graph.node(
        "Resize",
        [given[0], "", scales],
        output,
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def _binary(kind: str) -> Callable[..., None]:
    def write(graph: _Graph, output: str, given: list[Any], keywords: Mapping[str, Any]) -> None:
        inputs = [
            item if isinstance(item, str) else graph.constant(f"{output}.{index}", [float(item)])
            for index, item in enumerate(given)
        ]
        graph.node(kind, inputs, output)

    return write


def _mean(graph: _Graph, output: str, given: list[Any], keywords: Mapping[str, Any]) -> None:
    axes = graph.constant(f"{output}.axes", list(keywords["dim"]))
    graph.node("ReduceMean", [given[0], axes], output, keepdims=0)


def _pool(graph: _Graph, output: str, given: list[Any], keywords: Mapping[str, Any]) -> None:
    size, stride = given[1], keywords["stride"]
    assert not keywords["padding"] and keywords["dilation"] == 1
    _max_pool(graph, output, given[0], size, stride, keywords["ceil_mode"])


_FUNCTIONS: Mapping[str, Callable[..., None]] = {
    operator.add.__name__: _binary("Add"),
    operator.mul.__name__: _binary("Mul"),
    torch.cat.__name__: lambda graph, output, given, keywords: graph.node(
        "Concat", given[0], output, axis=keywords["dim"]
    ),
    F.relu.__name__: lambda graph, output, given, keywords: graph.node("Relu", given[:1], output),
    F.max_pool2d.__name__: _pool,
    F.interpolate.__name__: _interpolate,
    F.normalize.__name__: _normalize,
    "flatten": lambda graph, output, given, keywords: graph.node("Flatten", given[:1], output, axis=given[1]),
    "mean": _mean,
    "permute": lambda graph, output, given, keywords: graph.node("Transpose", given[:1], output, perm=given[1:]),
    "softmax": lambda graph, output, given, keywords: graph.node("Softmax", given[:1], output, axis=keywords["dim"]),
}
"""Functions and methods of tensors: (graph, name of the output, arguments, keywords)."""
