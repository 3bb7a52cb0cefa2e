"""fp32 ONNX graph -> int8 for TensorRT: symmetric static QDQ around the 3 x 3 convolutions, the rest in fp16.

TensorRT knows no zero points, keeps biases in floating point, and multiplies 8-bit weights without overflow: so this is
not the graph of `quantize_cpu`, which is made for onnxruntime on the CPU, though it leaves the same convolutions and
is calibrated on the same sampling trajectories. What is not quantised computes in fp16.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from id3pm.errors import EngineError
from id3pm.export.engine_folder import ConversionJob
from id3pm.export.unet import mixed_precision as half
from id3pm.export.unet.calibration import Rows, record
from id3pm.export.unet.onnx_export import Report
from id3pm.export.unet.quantize_cpu import pointwise, quiet, touching_the_image

SMALLEST_SCALE = 2.0**-14
"""The smallest normal number of fp16, in which the scales are kept; below they would lose digits."""


def convert(job: ConversionJob, report: Report) -> dict[str, Any]:
    """Rewrites `job.graph`; see `engine_folder.ConversionJob`.

    Raises:
        EngineError: The graph has no convolution to quantise, or a scale that fp16 cannot hold.
    """
    import onnx

    graph = onnx.load(job.graph, load_external_data=False).graph
    convolutions = [node.name for node in graph.node if node.op_type == "Conv"]
    kept = touching_the_image(graph) | pointwise(graph) if convolutions else set()
    if not set(convolutions) - kept:
        raise EngineError(f"{job.graph.name} has no convolution to quantise")
    report("recording sampling trajectories in fp32")
    calls, source = record(job)
    rows = sum(len(call["x"]) for call in calls)
    report(f"calibrating on {rows} rows")
    with tempfile.TemporaryDirectory(dir=job.graph.parent) as folder, quiet():
        quantised = Path(folder) / job.graph.name
        _quantise(job.graph, quantised, Rows(calls), kept)
        notes = half.rewrite(quantised, job.graph, "fp16", check=_require_scales)
    return {
        "method": "static symmetric QDQ, min-max ranges, per-channel weights of 8 bits; fp16 elsewhere",
        "calibration_rows": rows,
        "identity_vectors": source,
        "quantised": len(convolutions) - len(kept),
        "in_floating_point": sorted(kept),
        **notes,
    }


def _quantise(graph: Path, quantised: Path, rows: Rows, kept: set[str]) -> None:
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    plain = quantised.with_name("untyped.onnx")
    quantize_static(
        graph,
        plain,
        rows,
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv"],
        nodes_to_exclude=sorted(kept),
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        use_external_data_format=graph.with_name(graph.name + ".data").exists(),
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
    )
    onnx.shape_inference.infer_shapes_path(plain, quantised)  # the types of what was put in


def _require_scales(model: Any) -> None:
    for node in model.graph:
        if node.op_type == "QuantizeLinear" or node.op_type == "DequantizeLinear":
            smallest = float(np.min(node.inputs[1].const_value.numpy()))
            if smallest < SMALLEST_SCALE:
                raise EngineError(
                    f"{node.name} has a scale of {smallest:.2g}, fp16 holds {SMALLEST_SCALE:.2g} and more"
                )
