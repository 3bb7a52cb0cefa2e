"""Computes the golden values of the U-Net with the original code: key lists, parameter counts, outputs.

    python -m tests.golden.make_unet_golden --guided-diffusion PATH    # a checkout of openai/guided-diffusion

Writes unet_golden.json and unet_golden.npz beside this file; with --full-size unet_full_size_golden.npz too.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from id3pm.config import UNetConfig
from tests.golden.unet_cases import CASES, FULL_SIZE, KEEP_EVERY, condition_shapes, inputs, shape_lines, weights

HERE = Path(__file__).parent

# create_model's and sr_create_model's arguments for Table 2 of the paper's supplement
COMMON: dict[str, Any] = {
    "num_channels": 192,
    "learn_sigma": True,
    "class_cond": False,
    "use_checkpoint": False,
    "attention_resolutions": "32,16,8",
    "num_head_channels": -1,
    "num_heads_upsample": -1,
    "use_scale_shift_norm": True,
    "resblock_updown": True,
    "use_fp16": False,
}
BASE = {"image_size": 64, "num_res_blocks": 3, "num_heads": 3, "dropout": 0.1, "use_new_attention_order": True}
SR = {"large_size": 256, "small_size": 64, "num_res_blocks": 2, "num_heads": 4, "dropout": 0.0}


def import_original(checkout: Path) -> None:
    """Registers the checkout's package as `guided_diffusion`."""
    package = checkout / "guided_diffusion"
    spec = importlib.util.spec_from_file_location(
        "guided_diffusion", package / "__init__.py", submodule_search_locations=[str(package)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["guided_diffusion"] = module
    spec.loader.exec_module(module)


def build_original(unet: ModuleType, config: UNetConfig, num_classes: int | None) -> torch.nn.Module:
    super_resolution = config.low_res_size is not None
    cls = unet.SuperResModel if super_resolution else unet.UNetModel
    return cls(
        image_size=config.image_size,
        in_channels=3,
        model_channels=config.num_channels,
        out_channels=6 if config.learn_sigma else 3,
        num_res_blocks=config.num_res_blocks,
        attention_resolutions=tuple(config.image_size // r for r in config.attention_resolutions),
        dropout=config.dropout,
        channel_mult=config.channel_mult,
        conv_resample=config.conv_resample,
        num_classes=num_classes,
        num_heads=config.num_heads,
        num_head_channels=config.num_head_channels or -1,
        num_heads_upsample=config.num_heads_upsample or -1,
        use_scale_shift_norm=config.use_scale_shift_norm,
        resblock_updown=config.resblock_updown,
        use_new_attention_order=config.use_new_attention_order,
    )


def shapes_of(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}


def facts_of(unet: ModuleType, config: UNetConfig) -> dict[str, Any]:
    model = build_original(unet, config, num_classes=None)
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "zero_at_init": [key for key, tensor in model.state_dict().items() if not tensor.any()],
        "shapes": shape_lines(shapes_of(model)),
    }


def condition_embedding(config: UNetConfig, arrays: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """[N, E]: the sum of Linear, SiLU, Linear of each condition, written out in float64."""
    total = None
    params = {key: array.astype(np.float64) for key, array in weights(condition_shapes(config)).items()}
    for name, vectors in (("identity_embed", arrays.get("identity")), ("attribute_embed", arrays.get("attributes"))):
        if vectors is not None:
            hidden = vectors @ params[f"{name}.0.weight"].T + params[f"{name}.0.bias"]
            hidden = hidden / (1 + np.exp(-hidden))
            embedded = hidden @ params[f"{name}.2.weight"].T + params[f"{name}.2.bias"]
            total = embedded if total is None else total + embedded
    return None if total is None else total.astype(np.float32)


def run(unet: ModuleType, config: UNetConfig, batch: int) -> np.ndarray:
    """The original's output. Our conditions go in as class embeddings, which it adds at the same place: row i has
    class i.
    """
    arrays = inputs(config, batch)
    embedding = condition_embedding(config, arrays)
    model = build_original(unet, config, num_classes=None if embedding is None else batch)
    state = weights({key: shape for key, shape in shapes_of(model).items() if key != "label_emb.weight"})
    given = {key: torch.from_numpy(arrays[key]) for key in ("x", "timesteps", "low_res") if key in arrays}
    if embedding is not None:
        state["label_emb.weight"] = embedding
        given["y"] = torch.arange(batch)
    model.load_state_dict({key: torch.from_numpy(array) for key, array in state.items()})
    del state
    with torch.no_grad():
        return model.eval()(**given).numpy()


def preset_facts(model: torch.nn.Module) -> dict[str, Any]:
    lines = sorted(shape_lines(shapes_of(model)))
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "tensors": len(lines),
        "sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--guided-diffusion", type=Path, required=True, help="checkout of openai/guided-diffusion")
    parser.add_argument("--full-size", action="store_true", help="also the presets: minutes and 5 GB")
    options = parser.parse_args()
    import_original(options.guided_diffusion)
    unet = importlib.import_module("guided_diffusion.unet")
    script_util = importlib.import_module("guided_diffusion.script_util")

    with torch.device("meta"):
        presets = {
            "paper-base-64": preset_facts(script_util.create_model(**COMMON, **BASE)),
            "paper-sr-256": preset_facts(script_util.sr_create_model(**COMMON, **SR)),
        }
    cases = {name: facts_of(unet, config) for name, config in CASES.items()}
    (HERE / "unet_golden.json").write_text(json.dumps({"presets": presets, "cases": cases}, indent=1) + "\n")
    outputs = {name: run(unet, config, batch=2) for name, config in CASES.items()}
    np.savez_compressed(HERE / "unet_golden.npz", **outputs)
    if options.full_size:
        full = {name: run(unet, config, batch=1) for name, config in FULL_SIZE.items()}
        kept = {name: output[..., :: KEEP_EVERY[name], :: KEEP_EVERY[name]] for name, output in full.items()}
        np.savez_compressed(HERE / "unet_full_size_golden.npz", **kept)


if __name__ == "__main__":
    main()
