"""The landmark network of `id3pm.face.landmarks` in PyTorch, so that it has a gradient.

OpenVINO reads the file; PyTorch then executes its graph, of a dozen kinds of operations. Constant parts (unpacked and
transposed weights) are computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from id3pm.errors import EngineError, MissingExtraError
from id3pm.face.landmarks import INSTALL, POINTS, packaged_model

Operation = Callable[[list[Tensor], Mapping[str, Any]], Tensor]


class LandmarkNetwork(nn.Module):
    """Crops [N, 3, 192, 192] in [0, 1] -> landmarks [N, 468, 3] in pixels of the crop; differentiable, frozen.

    Args:
        model: The `.tflite` file; `None` takes the one of the installed `mediapipe` wheel.

    Raises:
        MissingExtraError: OpenVINO or the wheel is not installed.
        EngineError: The graph has an unknown operation.
    """

    def __init__(self, model: Path | None = None) -> None:
        super().__init__()
        file = packaged_model() if model is None else model
        try:
            import openvino as ov
        except ImportError as error:
            raise MissingExtraError(f"face landmarks need OpenVINO: {INSTALL}") from error
        graph = ov.Core().read_model(str(file))
        self._steps: list[tuple[str, str, list[str], dict[str, Any]]] = []
        constants: dict[str, Tensor] = {}
        for node in graph.get_ordered_ops():
            kind, name = node.get_type_name(), node.get_friendly_name()
            inputs = [each.get_source_output().get_node().get_friendly_name() for each in node.inputs()]
            if kind == "Constant":
                constants[name] = torch.from_numpy(np.array(node.get_data()))
            elif kind == "Parameter":
                self._input = name
            elif kind != "Result":
                if kind not in OPERATIONS:
                    raise EngineError(f"{file.name} has an operation {kind}: known are {', '.join(OPERATIONS)}")
                if all(each in constants for each in inputs):
                    constants[name] = OPERATIONS[kind]([constants[each] for each in inputs], node.get_attributes())
                else:
                    self._steps.append((kind, name, inputs, node.get_attributes()))
        # The landmarks are the output with three numbers for each point; the other is the score.
        outputs = [result.inputs()[0].get_source_output() for result in graph.get_results()]
        self._output = next(
            each.get_node().get_friendly_name()
            for each in outputs
            if each.get_partial_shape().get_max_shape()[-1] == 3 * POINTS
        )
        needed = {each for _, _, inputs, _ in self._steps for each in inputs} & constants.keys()
        self._names = {name: f"constant_{number}" for number, name in enumerate(sorted(needed))}
        for name, buffer in self._names.items():
            self.register_buffer(buffer, constants[name], persistent=False)

    def forward(self, crops: Tensor) -> Tensor:
        """See the class."""
        values = {name: self.get_buffer(buffer) for name, buffer in self._names.items()}
        values[self._input] = crops.permute(0, 2, 3, 1)  # the graph begins by turning it back
        for kind, name, inputs, attributes in self._steps:
            values[name] = OPERATIONS[kind]([values[each] for each in inputs], attributes)
            if name == self._output:
                break
        return values[self._output].reshape(len(crops), POINTS, 3)


def _convolution(inputs: list[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    x, weight = inputs
    groups = 1
    if weight.ndim == 5:  # [groups, out, in, h, w]
        groups = weight.shape[0]
        weight = weight.flatten(0, 1)
    (top, left), (bottom, right) = attributes["pads_begin"], attributes["pads_end"]
    x = F.pad(x, (left, right, top, bottom))
    return F.conv2d(x, weight, stride=tuple(attributes["strides"]), groups=groups)


def _pad(inputs: list[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    x, begin, end = inputs[:3]
    pairs = zip(reversed(begin.tolist()), reversed(end.tolist()), strict=True)
    return F.pad(x, [number for pair in pairs for number in pair])


def _reshape(inputs: list[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    x, wanted = inputs[0], inputs[1].tolist()
    # 0 keeps a side; the graph was written for one crop, and takes several here.
    shape = [x.shape[axis] if side == 0 and attributes["special_zero"] else side for axis, side in enumerate(wanted)]
    return x.reshape([len(x), *shape[1:]] if shape[0] == 1 else shape)


def _unsqueeze(inputs: list[Tensor], attributes: Mapping[str, Any]) -> Tensor:
    x = inputs[0]
    for axis in sorted(inputs[1].reshape(-1).tolist()):
        x = x.unsqueeze(int(axis))
    return x


OPERATIONS: Mapping[str, Operation] = {
    "Add": lambda inputs, _: inputs[0] + inputs[1],
    "Convert": lambda inputs, _: inputs[0].float() if inputs[0].is_floating_point() else inputs[0],
    "Convolution": _convolution,
    "GroupConvolution": _convolution,
    "MaxPool": lambda inputs, attributes: F.max_pool2d(
        inputs[0], tuple(attributes["kernel"]), tuple(attributes["strides"])
    ),
    "Pad": _pad,
    "PRelu": lambda inputs, _: torch.where(inputs[0] > 0, inputs[0], inputs[0] * inputs[1]),
    "Reshape": _reshape,
    "Transpose": lambda inputs, _: inputs[0].permute(inputs[1].tolist()),
    "Unsqueeze": _unsqueeze,
}
"""By OpenVINO's name of the operation."""
