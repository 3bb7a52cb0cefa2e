"""Engine folders of tiny U-Nets with random weights, exported for the tests of engines, sampling and pipeline."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path

import torch

from id3pm.config import DiffusionConfig, SamplingOptions, UNetConfig
from id3pm.engines.inputs import OUTPUT_NAME, input_shapes
from id3pm.engines.manifest import BundleReference, Manifest, OnnxNodes, Parity, Stage, engine_sha256, write_manifest
from id3pm.unet.model import UNet

BASE = UNetConfig(
    image_size=16,
    num_channels=32,
    num_res_blocks=1,
    channel_mult=(1, 2),
    attention_resolutions=(8,),
    num_heads=2,
    identity_dim=8,
    attribute_dim=11,
)
SR = UNetConfig(
    image_size=32,
    num_channels=32,
    num_res_blocks=1,
    channel_mult=(1, 1),
    attention_resolutions=(),
    resblock_updown=True,
    low_res_size=16,
)
BASE_DIFFUSION = DiffusionConfig(diffusion_steps=100)
SR_DIFFUSION = DiffusionConfig(diffusion_steps=100, noise_schedule="linear")
BASE_SAMPLING = SamplingOptions(steps=4)
SR_SAMPLING = SamplingOptions(steps=3, guidance_scale=1.0, dynamic_threshold=0.0)


def random_unet(config: UNetConfig, seed: int = 0) -> UNet:
    """A U-Net with random weights everywhere: initialisation leaves the last layers zero, which would hide much."""
    unet = UNet(config).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in unet.parameters():
            fan_in = parameter[0].numel()  # 1 for biases and norms
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / max(fan_in, 4) ** 0.5)
    return unet


def manifest_of(config: UNetConfig, file: Path, *, max_batch: int = 4) -> Manifest:
    """A manifest for an engine file of a tiny U-Net."""
    stage: Stage = "base" if config.low_res_size is None else "sr"
    return Manifest(
        stage=stage,
        target="onnx-cpu",
        precision="fp32",
        max_batch=max_batch,
        file=file.name,
        file_sha256=engine_sha256(file),
        bundle=BundleReference(name="tiny", weights_sha256="0" * 64, bundle_json_sha256="1" * 64),
        unet=config,
        diffusion=BASE_DIFFUSION if stage == "base" else SR_DIFFUSION,
        sampling=BASE_SAMPLING if stage == "base" else SR_SAMPLING,
        id_vector_model="sface",
        attribute_set=1,
        opset=18,
        onnx=OnnxNodes(nodes_before=1, nodes_after=1),
        versions={"torch": torch.__version__},
        device="cpu",
        parity=Parity(forward=[], trajectory={}, thresholds={}),
        built_at="2026-01-01T00:00:00+00:00",
    )


def write_engine_folder(folder: Path, config: UNetConfig, *, max_batch: int = 4, external_data: bool = False) -> UNet:
    """Exports a random U-Net into an engine folder, and returns it."""
    unet = random_unet(config)
    inputs = {name: torch.randn(shape) for name, shape in input_shapes(config, 2).items()}
    folder.mkdir(parents=True)
    file = folder / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        torch.onnx.export(
            unet,
            (),
            file,
            kwargs=inputs,
            input_names=list(inputs),
            output_names=[OUTPUT_NAME],
            dynamic_axes={name: {0: "rows"} for name in (*inputs, OUTPUT_NAME)},
            opset_version=18,
            dynamo=False,
        )
    if external_data:
        _move_weights_outside(file)
    write_manifest(folder, manifest_of(config, file, max_batch=max_batch))
    return unet


def rewrite_manifest(folder: Path, manifest: Manifest, **changes: object) -> Manifest:
    """Writes a changed manifest, and returns it."""
    changed = dataclasses.replace(manifest, **changes)  # type: ignore[arg-type]
    write_manifest(folder, changed)
    return changed


def _move_weights_outside(file: Path) -> None:
    import onnx

    model = onnx.load(file)
    onnx.save(model, file, save_as_external_data=True, location=file.name + ".data", size_threshold=256)
