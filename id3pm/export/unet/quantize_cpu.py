"""fp32 ONNX graph -> int8: static QDQ around the convolutions, one scale per output channel of their weights.

The 3 x 3 convolutions are nine tenths of the arithmetic and of the weights. The rest stays in floating point:

- the time and identity embedding, norms, attention products and softmax: they cost little, and every layer would
  inherit their error;
- the 1 x 1 convolutions. Some are the shortcuts that carry the image past a block: quantised alone, one of these cost
  more accuracy than all others together on the demo bundle;
- the first and the last convolution, which touch the image itself.

For onnxruntime weights take 7 bits (`reduce_range`): processors without VNNI add pairs of products in
16 bits, which overflow at 8, so that the same engine would give other images there. Engines for OpenVINO run only where
there is bf16, and VNNI with it: their weights take all 8.
Scales are constants, so a row's result does not depend on its batch.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from id3pm.engines.inputs import OUTPUT_NAME
from id3pm.errors import EngineError
from id3pm.export.engine_folder import ConversionJob
from id3pm.export.unet.calibration import Rows, record
from id3pm.export.unet.onnx_export import EXTERNAL_DATA_BYTES, Report


def convert(job: ConversionJob, report: Report) -> dict[str, Any]:
    """Rewrites `job.graph`; see `engine_folder.ConversionJob`.

    Raises:
        EngineError: The graph has no convolution to quantise.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    graph = onnx.load(job.graph, load_external_data=False).graph
    convolutions = [node.name for node in graph.node if node.op_type == "Conv"]
    kept = touching_the_image(graph) | pointwise(graph) if convolutions else set()
    if not set(convolutions) - kept:
        raise EngineError(f"{job.graph.name} has no convolution to quantise")
    report("recording sampling trajectories in fp32")
    calls, source = record(job)
    weights = job.graph.with_name(job.graph.name + ".data")
    external = weights.exists()
    report(f"calibrating on {sum(len(call['x']) for call in calls)} rows")
    all_bits = job.spec.target == "openvino-cpu"
    with tempfile.TemporaryDirectory(dir=job.graph.parent) as folder, quiet():
        quantised = Path(folder) / job.graph.name
        quantize_static(
            job.graph,
            quantised,
            Rows(calls),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=sorted(kept),
            per_channel=True,
            reduce_range=not all_bits,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            use_external_data_format=external,
        )
        weights.unlink(missing_ok=True)
        _save(onnx, onnx.load(quantised), job.graph)
    return {
        "method": f"static QDQ, min-max ranges, per-channel weights of {8 if all_bits else 7} bits",
        "calibration_rows": sum(len(call["x"]) for call in calls),
        "identity_vectors": source,
        "quantised": len(convolutions) - len(kept),
        "in_floating_point": sorted(kept),
    }


def touching_the_image(graph: Any) -> set[str]:
    """The convolutions that read the network's input and those that write its output."""
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    makers = {output: node for node in graph.node for output in node.output}
    first, last = convolutions[0], makers[OUTPUT_NAME]
    while last.op_type != "Conv":
        last = makers[last.input[0]]
    return {first.name, last.name}


def pointwise(graph: Any) -> set[str]:
    """The 1 x 1 convolutions."""
    sizes = {tensor.name: list(tensor.dims[2:]) for tensor in graph.initializer}
    return {node.name for node in graph.node if node.op_type == "Conv" and set(sizes[node.input[1]]) == {1}}


def _save(onnx: Any, model: Any, path: Path) -> None:
    if model.ByteSize() > EXTERNAL_DATA_BYTES:
        onnx.save(model, path, save_as_external_data=True, location=path.name + ".data")
    else:
        onnx.save(model, path)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences onnxruntime's advice to pre-process the graph: it is simplified already."""
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.getLogger().setLevel(level)
