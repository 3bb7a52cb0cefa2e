"""An insightface model pack in miniature: graphs with the real ones' inputs and outputs and computable answers.

The detector sees a face wherever an 8x8 block of the picture is white. The recogniser answers with the mean colour.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

BOX = (2.0, 2.5, 3.0, 2.0)
"""Distances from the cell's corner to left, top, right and bottom of the box, in strides."""
LANDMARKS = ((-1.0, -1.0), (1.5, -1.0), (0.25, 0.0), (-0.75, 1.0), (1.25, 1.0))
"""Landmarks from the cell's corner, in strides: eyes, nose, mouth corners of an upright face."""


def write_pack(folder: Path, mxnet: bool = False) -> Path:
    """Writes det_tiny.onnx, w600k_tiny.onnx (with `mxnet` it normalises inside the graph) and one that is neither."""
    folder.mkdir(parents=True)
    _save(_detector(), folder / "det_tiny.onnx")
    _save(_recogniser(mxnet), folder / "w600k_tiny.onnx")
    _save(_landmarks(), folder / "1k3d68.onnx")
    return folder


def _detector() -> onnx.GraphProto:
    """Nine outputs, as SCRFD's: scores, boxes, landmarks for each of the strides 8, 16, 32; no batch axis."""
    nodes, constants, outputs = [], [], {}
    for stride in (8, 16, 32):
        nodes.append(
            helper.make_node(
                "AveragePool", ["input.1"], [f"mean_{stride}"], kernel_shape=[stride] * 2, strides=[stride] * 2
            )
        )
        # A white block has mean (255 - 127.5) / 128 = 0.996. The second anchor of a cell never fires.
        heads = {
            "score": (1, np.array([[20 / 3] * 3, [0] * 3]), np.array([-18.0, -20.0])),
            "bbox": (4, np.zeros((8, 3)), np.array(BOX * 2)),
            "kps": (10, np.zeros((20, 3)), np.array(np.ravel(LANDMARKS).tolist() * 2)),
        }
        for kind, (width, weight, bias) in heads.items():
            name = f"{kind}_{stride}"
            constants += [
                numpy_helper.from_array(weight.astype(np.float32)[:, :, None, None], f"{name}_weight"),
                numpy_helper.from_array(bias.astype(np.float32), f"{name}_bias"),
                numpy_helper.from_array(np.array([-1, width]), f"{name}_shape"),
            ]
            last = f"{name}_rows" if kind == "score" else name
            nodes += [
                helper.make_node("Conv", [f"mean_{stride}", f"{name}_weight", f"{name}_bias"], [f"{name}_map"]),
                helper.make_node("Transpose", [f"{name}_map"], [f"{name}_last"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"{name}_last", f"{name}_shape"], [last]),
            ]
            if kind == "score":
                nodes.append(helper.make_node("Sigmoid", [last], [name]))
            outputs[name] = width
    order = [f"{kind}_{stride}" for kind in ("score", "bbox", "kps") for stride in (8, 16, 32)]
    return helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [1, 3, "height", "width"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["cells", outputs[name]]) for name in order],
        constants,
    )


def _recogniser(mxnet: bool) -> onnx.GraphProto:
    nodes, source = [], "data"
    constants = [
        numpy_helper.from_array(np.float32(127.5), "middle"),
        numpy_helper.from_array(np.float32(0.0078125), "scale"),
    ]
    if mxnet:
        nodes = [
            helper.make_node("Sub", ["data", "middle"], ["centred"]),
            helper.make_node("Mul", ["centred", "scale"], ["scaled"]),
        ]
        source = "scaled"
    nodes += [helper.make_node("GlobalAveragePool", [source], ["mean"]), helper.make_node("Flatten", ["mean"], ["fc1"])]
    return helper.make_graph(
        nodes,
        "recogniser",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, ["None", 3, 112, 112])],
        [helper.make_tensor_value_info("fc1", TensorProto.FLOAT, ["None", 3])],
        constants if mxnet else [],
    )


def _landmarks() -> onnx.GraphProto:
    return helper.make_graph(
        [helper.make_node("GlobalAveragePool", ["data"], ["fc1"])],
        "landmarks",
        [helper.make_tensor_value_info("data", TensorProto.FLOAT, ["None", 3, 192, 192])],
        [helper.make_tensor_value_info("fc1", TensorProto.FLOAT, ["None", 3, 1, 1])],
    )


def _save(graph: onnx.GraphProto, path: Path) -> None:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
