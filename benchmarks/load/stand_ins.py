"""Engines that compute almost nothing in place of the U-Nets, to measure the server alone."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from id3pm.config import PAPER_BASE_DIFFUSION, PAPER_SR_DIFFUSION, SamplingOptions, UNetConfig
from id3pm.engines.inputs import input_shapes, output_shape
from id3pm.engines.manifest import (
    BundleReference,
    Manifest,
    OnnxNodes,
    Parity,
    Stage,
    engine_sha256,
    read_manifest,
    write_manifest,
)
from id3pm.serving.protocol.served_models import STAGE_MODELS

BASE = UNetConfig(
    image_size=64, num_channels=32, num_res_blocks=1, channel_mult=(1,), attention_resolutions=(), identity_dim=128
)
SR = UNetConfig(
    image_size=256, num_channels=32, num_res_blocks=1, channel_mult=(1,), attention_resolutions=(), low_res_size=64
)


def build_repository(folder: Path, repository: Path, same_work: bool = False) -> Path:
    """The models of a repository with stand-ins for both U-Nets and its own face models; what is there is replaced.

    Args:
        folder: Where it is built.
        repository: Our models, and the face engine.
        same_work: The stand-ins have inputs, diffusion and defaults of the repository's own engines, so that all
            around the networks does the same work; else those of the paper's networks.
    """
    shutil.rmtree(folder, ignore_errors=True)
    kept = shutil.ignore_patterns("engine", "__pycache__", ".engine-*")
    shutil.copytree(repository, folder, ignore=kept)
    face = Path("face_embedding/1/engine")
    (folder / face).symlink_to((repository / face).resolve())
    plain = SamplingOptions(steps=3, guidance_scale=1.0, dynamic_threshold=0.0)
    papers: Mapping[Stage, dict[str, Any]] = {
        "base": {"unet": BASE, "diffusion": PAPER_BASE_DIFFUSION, "sampling": SamplingOptions(steps=5)},
        "sr": {"unet": SR, "diffusion": PAPER_SR_DIFFUSION, "sampling": plain},
    }
    for stage, model in STAGE_MODELS.items():
        engine = Path(model, "1", "engine")
        fields = {"stage": stage, **(_of(read_manifest(repository / engine)) if same_work else papers[stage])}
        write_stand_in(folder / engine, network(fields["unet"]), **fields)
    return folder


def _of(manifest: Manifest) -> dict[str, Any]:
    """What decides all work around a network."""
    names = ("unet", "diffusion", "sampling", "max_batch", "attribute_set", "id_vector_model", "l2_normalised")
    return {name: getattr(manifest, name) for name in names}


def network(unet: UNetConfig) -> onnx.ModelProto:
    """A graph with the inputs of a U-Net, most of which it ignores: one convolution keeps no intermediate result."""
    shapes = {name: ",".join(map(str, ("N", *shape[1:]))) for name, shape in input_shapes(unet, 1).items()}
    inputs = ", ".join(f"float[{shape}] {name}" for name, shape in shapes.items())
    output = ",".join(map(str, ("N", *output_shape(unet, 1)[1:])))
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 17]>
network ({inputs}) => (float[{output}] model_output) {{
    model_output = Conv(x, weights)
}}"""
    )
    weights = np.full((unet.out_channels, 3, 1, 1), 0.1, dtype=np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weights, "weights"))
    return model


def write_stand_in(folder: Path, model: onnx.ModelProto, **changes: Any) -> None:
    """A graph as an engine folder with a manifest that proves nothing, but for these fields of it."""
    folder.mkdir(parents=True)
    onnx.save(model, folder / "model.onnx")
    nodes = len(model.graph.node)
    fields = {
        "target": "onnx-cpu",
        "precision": "fp32",
        "max_batch": 16,
        "file": "model.onnx",
        "file_sha256": engine_sha256(folder / "model.onnx"),
        "bundle": BundleReference(name="stand-in", weights_sha256="0" * 64, bundle_json_sha256="0" * 64),
        "id_vector_model": "sface",
        "attribute_set": None,
        "opset": 17,
        "onnx": OnnxNodes(nodes_before=nodes, nodes_after=nodes),
        "versions": {"onnx": onnx.__version__},
        "device": "cpu",
        "parity": Parity(forward=[], trajectory={}, thresholds={}),
        "built_at": "1970-01-01T00:00:00+00:00",
    }
    write_manifest(folder, Manifest(**{**fields, **changes}))
