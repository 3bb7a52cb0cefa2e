"""Engines that compute almost nothing in place of the U-Nets, to measure the server alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from id3pm.config import PAPER_BASE_DIFFUSION, PAPER_SR_DIFFUSION, DiffusionConfig, SamplingOptions, UNetConfig
from id3pm.engines.manifest import BundleReference, Manifest, OnnxNodes, Parity, Stage, engine_sha256, write_manifest

BASE = UNetConfig(
    image_size=64, num_channels=32, num_res_blocks=1, channel_mult=(1,), attention_resolutions=(), identity_dim=128
)
SR = UNetConfig(
    image_size=256, num_channels=32, num_res_blocks=1, channel_mult=(1,), attention_resolutions=(), low_res_size=64
)
GRAPHS: dict[Stage, str] = {
    "base": """<ir_version: 8, opset_import: ["": 17]>
base (float[N,3,64,64] x, float[N] timesteps, float[N,128] identity) => (float[N,6,64,64] model_output) {
    model_output = Conv(x, weights)
}""",
    "sr": """<ir_version: 8, opset_import: ["": 17]>
sr (float[N,3,256,256] x, float[N] timesteps, float[N,3,64,64] low_res) => (float[N,6,256,256] model_output) {
    model_output = Conv(x, weights)
}""",
}
"""With the inputs of a U-Net, most of which they ignore: one 1 x 1 convolution keeps no intermediate result."""


def build_repository(folder: Path, repository: Path) -> Path:
    """The models of a repository with stand-ins for both U-Nets and its own face models; what is there is replaced."""
    shutil.rmtree(folder, ignore_errors=True)
    kept = shutil.ignore_patterns("engine", "__pycache__", ".engine-*")
    shutil.copytree(repository, folder, ignore=kept)
    face = Path("face_embedding/1/engine")
    (folder / face).symlink_to((repository / face).resolve())
    sampling = SamplingOptions(steps=5)
    plain = SamplingOptions(steps=3, guidance_scale=1.0, dynamic_threshold=0.0)
    _engine(folder / "denoiser_64/1/engine", "base", BASE, PAPER_BASE_DIFFUSION, sampling)
    _engine(folder / "super_resolution/1/engine", "sr", SR, PAPER_SR_DIFFUSION, plain)
    return folder


def _engine(
    folder: Path, stage: Stage, unet: UNetConfig, diffusion: DiffusionConfig, sampling: SamplingOptions
) -> None:
    model = onnx.parser.parse_model(GRAPHS[stage])
    weights = np.full((unet.out_channels, 3, 1, 1), 0.1, dtype=np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weights, "weights"))
    write_stand_in(folder, model, stage=stage, unet=unet, diffusion=diffusion, sampling=sampling)


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
