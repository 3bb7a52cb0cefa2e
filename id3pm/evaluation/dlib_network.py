"""dlib's face-recognition network in onnxruntime: ten times as fast as in dlib's wheel, which has no BLAS.

The layers are those of `anet_type` in dlib's `examples/dnn_face_recognition_ex.cpp`; the weights are read from dlib's
own file. tests/evaluation/test_dlib_network.py compares the vectors with dlib's.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import InvalidInputError, MissingExtraError
from id3pm.installation import how_to_install

CHIP_SIZE = 150
DIM = 128
MEAN = (122.782, 117.001, 104.298)
"""Of the training pictures, RGB: `input_rgb_image_sized`."""
LEVELS = ((32, 3, False), (64, 4, True), (128, 3, True), (256, 3, True), (256, 1, True))
"""`alevel4` to `alevel0`: filters, residual blocks, whether the first one halves the size."""
REPAIR = "install face-recognition-models again"
HOW = f"dlib's network needs onnx and onnxruntime: {how_to_install('evaluate')}"
# Name with its length; of `fc` the sizes 128 and 256, too; version 2 of a tensor.
_LAYER = re.compile(rb"(?:\x05(con_4)|\x07(affine_)|\x04(fc_2)\x01\x80\x02\x00\x01)\x01\x02")


class DlibNetwork:
    """The network.

    Args:
        file: `dlib_face_recognition_resnet_model_v1.dat`.

    Raises:
        InvalidInputError: Another file, or a damaged one.
        MissingExtraError: onnx or onnxruntime is not installed.
        OSError: It cannot be read.
    """

    def __init__(self, file: Path) -> None:
        model = _model(_Weights(file)).SerializeToString()
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError(HOW) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def describe(self, chip: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The vector, float32 [128], of an aligned face uint8 [150, 150, 3], RGB."""
        (vectors,) = self._session.run(None, {"chip": chip[None]})
        vector: NDArray[np.float32] = vectors[0]
        return vector


class _Weights:
    """The tensors of dlib's file in the order of its layers, which is that of their computation."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._data = file.read_bytes()
        self._at = 0

    def next(self, layer: bytes, size: int) -> NDArray[np.float32]:
        """The parameters of the next layer with parameters.

        Args:
            layer: dlib's name of its kind.
            size: How many there must be.
        """
        found = _LAYER.search(self._data, self._at)
        if found is None or found[found.lastindex or 0] != layer:
            raise InvalidInputError(f"{self._file.name}: has no {layer.decode()} where dlib's has one: {REPAIR}")
        at, count = found.end(), 1
        for _ in range(4):  # samples, channels, rows, columns: length in bytes, then little-endian
            length = self._data[at] if at < len(self._data) else 0
            count *= int.from_bytes(self._data[at + 1 : at + 1 + length], "little")
            at += 1 + length
        self._at = at + 4 * count
        if count != size or self._at > len(self._data):
            raise InvalidInputError(f"{self._file.name}: {layer.decode()} has {count} numbers, {size} needed: {REPAIR}")
        return np.frombuffer(self._data, "<f4", count, at)


class _Graph:
    """An ONNX graph that grows layer by layer."""

    def __init__(self, weights: _Weights) -> None:
        try:
            import onnx
        except ImportError as error:
            raise MissingExtraError(HOW) from error
        self._onnx = onnx
        self._weights = weights
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node; returns the name of its output."""
        name = f"x{len(self.nodes)}"
        self.nodes.append(self._onnx.helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(self, value: NDArray[Any]) -> str:
        """Adds a constant; returns its name."""
        name = f"w{len(self.constants)}"
        self.constants.append(self._onnx.numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def convolved(self, x: str, channels: int, filters: int, size: int, stride: int) -> str:
        """The layers `con` of dlib, padded where its stride is 1, and `affine`."""
        count = filters * channels * size * size
        values = self._weights.next(b"con_4", count + filters)
        kernel, bias = values[:count].reshape(filters, channels, size, size), values[count:]
        pads = [size // 2 if stride == 1 else 0] * 4
        x = self.add("Conv", x, self.constant(kernel), self.constant(bias), strides=[stride] * 2, pads=pads)
        scale, shift = self._weights.next(b"affine_", 2 * filters).reshape(2, 1, filters, 1, 1)
        return self.add("Add", self.add("Mul", x, self.constant(scale)), self.constant(shift))

    def padded(self, x: str, channels: int, pixels: int) -> str:
        """Zeros behind the last channels, rows and columns."""
        return self.add("Pad", x, self.constant(np.array([0, 0, 0, 0, 0, channels, pixels, pixels], np.int64)))

    def residual(self, x: str, channels: int, filters: int, size: int, halves: bool) -> tuple[str, int]:
        """A block `ares` or `ares_down` of dlib: output, and its side in pixels."""
        stride = 2 if halves else 1
        y = self.add("Relu", self.convolved(x, channels, filters, 3, stride))
        y = self.convolved(y, filters, filters, 3, 1)
        if halves:
            inner, size = (size - 3) // 2 + 1, size // 2
            x = self.add("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
            # `add_prev` of different sizes: what is missing is 0.
            x, y = self.padded(x, filters - channels, 0), self.padded(y, 0, size - inner)
        return self.add("Relu", self.add("Add", x, y)), size

    def dense(self, x: str, inputs: int) -> str:
        """The layer `fc_no_bias` of dlib."""
        return self.add("MatMul", x, self.constant(self._weights.next(b"fc_2", inputs * DIM).reshape(inputs, DIM)))

    def model(self, output: str) -> Any:
        """The ONNX model from `chip` to `output`."""
        helper, kinds = self._onnx.helper, self._onnx.TensorProto
        chip = helper.make_tensor_value_info("chip", kinds.UINT8, [1, CHIP_SIZE, CHIP_SIZE, 3])
        vector = helper.make_tensor_value_info(output, kinds.FLOAT, [1, DIM])
        graph = helper.make_graph(self.nodes, "dlib", [chip], [vector], self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _model(weights: _Weights) -> Any:
    """The network as an ONNX model."""
    graph = _Graph(weights)
    x = graph.add("Transpose", graph.add("Cast", "chip", to=1), perm=[0, 3, 1, 2])  # to=1: float32
    x = graph.add("Sub", x, graph.constant(np.array(MEAN, np.float32).reshape(1, 3, 1, 1)))
    x = graph.add("Div", x, graph.constant(np.array(256.0, np.float32)))
    channels = LEVELS[0][0]
    x = graph.add("Relu", graph.convolved(x, 3, channels, 7, 2))
    x, size = graph.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2]), 35  # 150 -> 72 -> 35
    for filters, blocks, halves in LEVELS:
        for block in range(blocks):
            x, size = graph.residual(x, channels, filters, size, halves and not block)
            channels = filters
    x = graph.add("Flatten", graph.add("GlobalAveragePool", x))
    return graph.model(graph.dense(x, channels))
