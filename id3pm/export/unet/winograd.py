"""Wide 3x3 convolutions as matrix products of a quarter of the multiplications (Winograd), written into the graph.

Lavin and Gray (2016), "Fast Algorithms for Convolutional Neural Networks", section 4: a tile of m x m outputs of a 3x3
convolution needs (m + 2)^2 products per pair of channels instead of 9 m^2, after linear transforms of tile and weights:
36 instead of 144 for m = 4, 16 instead of 36 for m = 2. onnxruntime's CPU kernels convolve directly; with the standard
operators below its matrix products do the work. In float32 the relative error of one convolution is 3e-6 (m = 4) and
5e-7 (m = 2). For the CPU and fp32 only: other runtimes have kernels of their own, and quantisation wants small ranges.

Each row of a batch is transformed and multiplied by itself, so its result does not depend on the others.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


@dataclasses.dataclass(frozen=True, eq=False)
class Tile:
    """The transforms B^T [a, a], G [a, 3] and A^T [m, a] of m x m outputs, a = m + 2."""

    size: int
    input: NDArray[np.float64]
    kernel: NDArray[np.float64]
    output: NDArray[np.float64]


F2 = Tile(
    2,
    np.array([[1.0, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]]),
    np.array([[1.0, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]),
    np.array([[1.0, 1, 1, 0], [0, 1, -1, -1]]),
)
F4 = Tile(
    4,
    np.array(
        [
            [4.0, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ]
    ),
    np.array(
        [
            [1 / 4, 0, 0],
            [-1 / 6, -1 / 6, -1 / 6],
            [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6],
            [1 / 24, -1 / 12, 1 / 6],
            [0, 0, 1],
        ]
    ),
    np.array([[1.0, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]),
)


def choose_tile(channels: int, out_channels: int, size: int) -> Tile | None:
    """Which tiles pay for a convolution over `size` x `size` pixels; `None` where the direct kernel is faster.

    Products saved grow with both numbers of channels, data to transform with their sum: what decides is their quotient.
    The fewer tiles an image has, the narrower the products; at 8 px neither tile gained on a processor with AVX-512.
    The limits are where two cores with AVX2 and two with AVX-512 gained (docs/benchmarks.md).
    """
    width = channels * out_channels / (channels + out_channels)
    if size < 16 or size % F4.size or width < 64:
        return None
    return F2 if size == 16 and width >= 128 else F4


def to_winograd(ir: Any, model: Any) -> int:
    """Rewrites the convolutions of a model for which `choose_tile` finds a tile; returns how many.

    Args:
        ir: The module `onnx_ir`.
        model: An `onnx_ir.Model` with shapes, changed in place. Transformed weights are computed when it is saved.
    """
    convolutions = [(node, tile) for node in model.graph if (tile := _tile_of(node)) is not None]
    for node, tile in convolutions:
        replace_convolution(ir, model.graph, node, tile)
    return len(convolutions)


def replace_convolution(ir: Any, graph: Any, node: Any, tile: Tile) -> None:
    """Rewrites one 3x3 convolution of stride 1 in place, whether it pays or not."""
    _Rewriter(ir, graph, node, tile).run()


def _tile_of(node: Any) -> Tile | None:
    if node.op_type != "Conv" or node.inputs[1].const_value is None or len(node.inputs) != 3:
        return None
    out_channels, channels, *kernel = node.inputs[1].shape
    given = {name: attribute.value for name, attribute in node.attributes.items()}
    plain = {"strides": [1, 1], "dilations": [1, 1], "group": 1, "auto_pad": "NOTSET"}
    if kernel != [3, 3] or list(given.get("pads", ())) != [1, 1, 1, 1]:
        return None
    if any(_listed(given.get(name, value)) != value for name, value in plain.items()):
        return None
    height, width = node.inputs[0].shape[2:]
    return choose_tile(channels, out_channels, height) if height == width else None


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def transformed_weight(weight: FloatArray, tile: Tile) -> FloatArray:
    """(G w G^T) of every pair of channels: [K, C, 3, 3] -> [a a, K, C]."""
    both = np.einsum("ai,bj->abij", tile.kernel, tile.kernel).reshape(-1, 9)
    out_channels, channels = weight.shape[:2]
    transformed = np.empty((len(both), out_channels, channels), dtype=np.float32)
    for k in range(out_channels):  # one output channel at a time: float64 of all would be gigabytes
        transformed[:, k] = both @ weight[k].reshape(channels, 9).T.astype(np.float64)
    return transformed


class _Rewriter:
    """Replaces one convolution node."""

    def __init__(self, ir: Any, graph: Any, node: Any, tile: Tile) -> None:
        self._ir, self._graph, self._node, self._tile = ir, graph, node, tile
        self._nodes: list[Any] = []

    def run(self) -> None:
        x, weight, bias = self._node.inputs
        out_channels, channels = weight.shape[:2]
        m, points = self._tile.size, (self._tile.size + 2) ** 2
        size = x.shape[2]
        tiles = size // m
        # Every channel is an image of its own for the transform, a convolution of stride m that reads every tile.
        x = self._op("Reshape", x, self._shape(-1, 1, size, size))
        transform = self._const("input", _both(self._tile.input)[:, None])
        x = self._op("Conv", x, transform, kernel_shape=[m + 2, m + 2], strides=[m, m], pads=[1, 1, 1, 1])
        x = self._op("Reshape", x, self._shape(-1, channels, points, tiles * tiles))
        x = self._op("Transpose", x, perm=[0, 2, 1, 3])
        x = self._op("MatMul", self._weight(weight), x)
        x = self._op("Reshape", x, self._shape(0, points, out_channels * tiles * tiles))
        transform = self._const("output", _both(self._tile.output).reshape(m * m, points))
        x = self._op("MatMul", transform, x)
        x = self._op("Reshape", x, self._shape(0, m * m * out_channels, tiles, tiles))
        x = self._op("DepthToSpace", x, blocksize=m, mode="DCR")
        bias_image = np.asarray(bias.const_value.numpy()).reshape(1, -1, 1, 1)
        self._finish(self._op("Add", x, self._value(f"{bias.name}.image", bias_image)))

    def _finish(self, result: Any) -> None:
        old = self._node.outputs[0]
        result.shape, result.type = old.shape, old.type
        self._graph.insert_before(self._node, self._nodes)
        self._ir.convenience.replace_all_uses_with(old, result, replace_graph_outputs=True)
        unused = [value for value in self._node.inputs[1:] if len(value.uses()) == 1]
        self._graph.remove(self._node, safe=True)
        name, old.name = old.name, None
        result.name = name
        for value in unused:
            del self._graph.initializers[value.name]

    def _op(self, op_type: str, *inputs: Any, **attributes: Any) -> Any:
        node = self._ir.node(op_type, list(inputs), attributes=attributes)
        node.outputs[0].name = f"{self._node.outputs[0].name}.winograd{len(self._nodes)}"
        self._nodes.append(node)
        return node.outputs[0]

    def _shape(self, *sizes: int) -> Any:
        return self._value(f"winograd.shape.{'x'.join(map(str, sizes))}", np.array(sizes, dtype=np.int64))

    def _const(self, name: str, array: NDArray[Any]) -> Any:
        dtype = np.int64 if array.dtype.kind == "i" else np.float32
        return self._value(f"winograd{self._tile.size}.{name}", array.astype(dtype))

    def _weight(self, weight: Any) -> Any:
        """The transformed weight, computed anew when it is read: all of them together are gigabytes."""
        points = (self._tile.size + 2) ** 2
        name = f"{weight.name}.winograd{self._tile.size}"
        tensor = self._ir.LazyTensor(
            functools.partial(_lazy_weight, self._ir, weight.const_value, self._tile, name),
            dtype=self._ir.DataType.FLOAT,
            shape=self._ir.Shape((points, *weight.shape[:2])),
            name=name,
        )
        return self._register(name, tensor)

    def _value(self, name: str, array: NDArray[Any]) -> Any:
        if name in self._graph.initializers:
            return self._graph.initializers[name]
        return self._register(name, self._ir.tensor(array, name=name))

    def _register(self, name: str, tensor: Any) -> Any:
        type_ = self._ir.TensorType(tensor.dtype)
        value = self._ir.Value(name=name, shape=tensor.shape, type=type_, const_value=tensor)
        self._graph.register_initializer(value)
        return value


def _both(transform: NDArray[np.float64]) -> NDArray[np.float64]:
    """The transform along both axes of an image: [n, a] -> [n n, a, a]."""
    size = transform.shape[1]
    both: NDArray[np.float64] = np.einsum("ai,bj->abij", transform, transform).reshape(-1, size, size)
    return both


def _lazy_weight(ir: Any, weight: Any, tile: Tile, name: str) -> Any:
    return ir.tensor(transformed_weight(weight.numpy(), tile), name=name)
