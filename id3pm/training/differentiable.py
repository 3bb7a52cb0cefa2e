"""An FR network's ONNX graph as a PyTorch module, so that gradients reach its input.

FR networks are plain chains of convolutions with few operators, each one line here. (Converters from PyPI require
torchvision.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from id3pm.errors import EngineError, MissingExtraError
from id3pm.installation import how_to_install

Attributes = Mapping[str, Any]
Node = tuple[str, Attributes, list[str], str]
"""Operator, attributes, names of the inputs, name of the output."""


class DifferentiableGraph(nn.Module):
    """Runs the nodes of an ONNX graph in PyTorch, in evaluation mode; its weights are buffers, not parameters.

    Args:
        model: An ONNX file with one input and one output.

    Raises:
        EngineError: The graph has an operator (or a form of one) that is not in `OPERATORS`.
    """

    def __init__(self, model: Path) -> None:
        super().__init__()
        try:
            import onnx
            from onnx import numpy_helper
        except ImportError as error:
            raise MissingExtraError(f"the identity loss reads ONNX files: {how_to_install('train')}") from error
        graph = onnx.load(model).graph
        constants = {item.name: torch.from_numpy(numpy_helper.to_array(item).copy()) for item in graph.initializer}
        self._nodes: list[Node] = []
        for node in graph.node:
            if node.op_type not in OPERATORS:
                known = ", ".join(sorted(OPERATORS))
                raise EngineError(
                    f"{model.name} has an operator {node.op_type}, which has no gradient here: {known} have"
                )
            attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
            self._nodes.append((node.op_type, attributes, list(node.input), node.output[0]))
        (self._input,) = (value.name for value in graph.input if value.name not in constants)
        (self._output,) = (value.name for value in graph.output)
        self._nodes = _fold_batch_norms(self._nodes, constants)
        self._buffer_of = {name: f"constant_{index}" for index, name in enumerate(constants)}
        for name, buffer in self._buffer_of.items():
            self.register_buffer(buffer, constants[name], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """The graph's output for `x`, float32 of the graph's input shape."""
        values = {name: self.get_buffer(buffer) for name, buffer in self._buffer_of.items()}
        values[self._input] = x
        for operator, attributes, inputs, output in self._nodes:
            values[output] = OPERATORS[operator](attributes, *(values[name] if name else None for name in inputs))
        return values[self._output]


def _fold_batch_norms(nodes: list[Node], constants: dict[str, Tensor]) -> list[Node]:
    """The nodes without the batch norms that alone follow a convolution: they scale its weights and shift its bias.

    Args:
        nodes: In order of execution.
        constants: Weights by name; those of folded pairs are added.
    """
    uses = Counter(name for _, _, inputs, _ in nodes for name in inputs)
    maker = {output: index for index, (_, _, _, output) in enumerate(nodes)}
    folded = list(nodes)
    gone = set()
    for index, (operator, attributes, inputs, output) in enumerate(nodes):
        before = maker.get(inputs[0])
        if operator != "BatchNormalization" or before is None or uses[inputs[0]] > 1:
            continue
        conv, conv_attributes, conv_inputs, _ = nodes[before]
        if conv != "Conv" or conv_inputs[1] not in constants:
            continue
        scale, bias, mean, var = (constants[name] for name in inputs[1:])
        factor = scale / torch.sqrt(var + attributes.get("epsilon", 1e-5))
        weight = constants[conv_inputs[1]]
        shift = constants[conv_inputs[2]] if len(conv_inputs) > 2 else torch.zeros_like(mean)
        names = [f"{output}.weight", f"{output}.bias"]
        constants[names[0]] = weight * factor.view(-1, *[1] * (weight.ndim - 1))
        constants[names[1]] = bias + (shift - mean) * factor
        folded[before] = (conv, conv_attributes, [conv_inputs[0], *names], output)
        gone.add(index)
    return [node for index, node in enumerate(folded) if index not in gone]


def _conv(attributes: Attributes, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    pads = list(attributes.get("pads", [0, 0, 0, 0]))
    if len(pads) != 4 or attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise EngineError(f"a convolution with pads={pads}, auto_pad={attributes.get('auto_pad')} has no gradient here")
    groups = attributes.get("group", 1)
    if weight.shape[1:] == (1, 1, 1) and groups == x.shape[1] and list(attributes.get("strides", [1, 1])) == [1, 1]:
        scaled = x * weight.view(1, -1, 1, 1)  # one factor per channel: far cheaper than the convolution it is
        return scaled if bias is None else scaled + bias.view(1, -1, 1, 1)
    top, left, bottom, right = pads
    if (top, left) != (bottom, right):
        x, top, left = F.pad(x, (left, right, top, bottom)), 0, 0
    strides, dilations = list(attributes.get("strides", [1, 1])), list(attributes.get("dilations", [1, 1]))
    return F.conv2d(x, weight, bias, strides, (top, left), dilations, groups)


def _batch_norm(attributes: Attributes, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensor:
    return F.batch_norm(x, mean, var, scale, bias, training=False, eps=attributes.get("epsilon", 1e-5))


def _gemm(attributes: Attributes, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    a = a.T if attributes.get("transA", 0) else a
    b = b.T if attributes.get("transB", 0) else b
    product = float(attributes.get("alpha", 1.0)) * (a @ b)
    return product if c is None else product + float(attributes.get("beta", 1.0)) * c


OPERATORS: Mapping[str, Callable[..., Tensor]] = {
    "Add": lambda attributes, a, b: a + b,
    "BatchNormalization": _batch_norm,
    "Conv": _conv,
    "Div": lambda attributes, a, b: a / b,
    "Flatten": lambda attributes, x: x.flatten(attributes.get("axis", 1)),
    "Gemm": _gemm,
    "Identity": lambda attributes, x: x,
    "Mul": lambda attributes, a, b: a * b,
    "PRelu": lambda attributes, x, slope: x.clamp(min=0) + slope * x.clamp(max=0),
    "Relu": lambda attributes, x: x.relu(),
    "Sub": lambda attributes, a, b: a - b,
}
"""Implementations by operator: (attributes, inputs) -> output, as the ONNX operator of that name."""
