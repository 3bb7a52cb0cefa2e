"""Computes the golden values of the FR networks and of MTCNN with the original code: key lists, outputs, faces.

    python -m tests.golden.make_face_networks_golden --facenet-pytorch PATH --adaface PATH --from PATH --razzhigaev PATH

The paths are checkouts of timesler/facenet-pytorch (787da06), mk-minchul/AdaFace (c60eaa7), haibo-qiu/FROM (416c13c)
and papermsucode/2020bboxrestoration (89c6767). No weights but MTCNN's, which are in the checkouts, are needed. Writes
face_networks.json and face_networks.npz beside this file. facenet-pytorch imports torchvision for two functions, which
are given here instead, so that it need not be installed.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests.golden.face_network_cases import CROP_SIZES, made_up_crops, made_up_state
from tests.golden.unet_cases import shape_lines

HERE = Path(__file__).parent
CROPPED = ("portrait", "small")  # scenes whose crops are kept


def stand_in_for_torchvision() -> None:
    """`to_tensor` for float pictures and `batched_nms`, as torchvision documents them."""

    def batched_nms(boxes: torch.Tensor, scores: torch.Tensor, groups: torch.Tensor, limit: float) -> torch.Tensor:
        kept: list[int] = []
        for index in torch.argsort(scores, descending=True, stable=True).tolist():
            box = boxes[index]
            others = boxes[[other for other in kept if groups[other] == groups[index]]]
            overlap = torch.minimum(box[2:], others[:, 2:]) - torch.maximum(box[:2], others[:, :2])
            shared = overlap.clamp(min=0).prod(dim=1)
            areas = (others[:, 2:4] - others[:, :2]).prod(dim=1) + (box[2:4] - box[:2]).prod()
            if not (shared / (areas - shared) > limit).any():
                kept.append(index)
        return torch.tensor(kept, dtype=torch.int64)

    names = ["torchvision", "torchvision.transforms", "torchvision.transforms.functional", "torchvision.ops"]
    modules: dict[str, Any] = {name: types.ModuleType(name) for name in [*names, "torchvision.ops.boxes"]}
    modules["torchvision.transforms"].functional = modules["torchvision.transforms.functional"]
    modules["torchvision.transforms.functional"].to_tensor = lambda array: torch.from_numpy(array).permute(2, 0, 1)
    modules["torchvision.ops.boxes"].batched_nms = batched_nms
    sys.modules.update(modules)


def package(name: str, folder: Path) -> Any:
    """The package in `folder`, imported as `name`."""
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def module(name: str, file: Path) -> Any:
    """One file, imported as `name`."""
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made


def tensors(crops: np.ndarray) -> torch.Tensor:
    """Pixels 0..255 as float32 [N, 3, H, W]."""
    return torch.from_numpy(crops.transpose(0, 3, 1, 2).astype(np.float32)).contiguous()


def outputs_of(name: str, network: torch.nn.Module, facenet: Any) -> np.ndarray:
    """ID vectors of the made-up crops, with the repository's pre-processing written out."""
    pixels = tensors(made_up_crops(name))
    given = {
        "facenet": facenet.fixed_image_standardization(pixels),
        "adaface": (pixels.flip(1) / 255.0 - 0.5) / 0.5,  # inference.py: to_input
        "arcface-razzhigaev": (pixels / 255 - 0.5) * 2,  # face_recovery.ipynb: preprocess_image_tensors
        "from": (pixels / 255 - 0.5) / 0.5,  # test.py: ToTensor, Normalize
    }[name]
    with torch.no_grad():
        output = network.eval()(given)
    return (output[0] if isinstance(output, tuple) else output).numpy()


def mtcnn_golden(facenet: Any, adaface: Path) -> dict[str, np.ndarray]:
    """Faces on test pictures: boxes [K, 4] as x1, y1, x2, y2, scores [K], landmarks [K, 5, 2], crops of the first."""
    from tests.face.scenes import scenes

    detector = facenet.MTCNN()
    golden: dict[str, np.ndarray] = {}
    for name, picture in scenes().items():
        image = Image.fromarray(picture)
        boxes, scores, points = detector.detect(image, landmarks=True)
        golden[f"mtcnn {name} boxes"] = np.asarray(boxes, dtype=np.float32)
        golden[f"mtcnn {name} scores"] = np.asarray(scores, dtype=np.float32)
        golden[f"mtcnn {name} points"] = np.asarray(points, dtype=np.float32)
        for margin in (0, 14) if name in CROPPED else ():
            crop = facenet.extract_face(image, boxes[0], image_size=160, margin=margin)
            golden[f"mtcnn {name} crop margin {margin}"] = crop.permute(1, 2, 0).numpy().astype(np.uint8)
    sys.path.insert(0, str(adaface / "face_alignment"))
    os.chdir(adaface / "face_alignment")
    align = importlib.import_module("mtcnn").MTCNN(device="cpu")
    for name, picture in scenes().items():
        image = Image.fromarray(picture)
        _, points = align.detect_faces(image, align.min_face_size, align.thresholds, align.nms_thresholds, align.factor)
        golden[f"adaface {name} points"] = np.asarray(points, dtype=np.float32).reshape(-1, 2, 5).transpose(0, 2, 1)
        if name in CROPPED:
            golden[f"adaface {name} crop"] = np.asarray(align.align_multi(image, limit=1)[1][0])
    return golden


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("facenet-pytorch", "adaface", "from", "razzhigaev"):
        parser.add_argument(f"--{name}", type=Path, required=True, dest=name.replace("-", "_"))
    options = vars(parser.parse_args())
    stand_in_for_torchvision()
    facenet = package("facenet_pytorch", options["facenet_pytorch"])
    networks = {
        "facenet": facenet.InceptionResnetV1,
        "adaface": lambda: module("adaface_net", options["adaface"] / "net.py").build_model("ir_50"),
        "arcface-razzhigaev": module("archface", options["razzhigaev"] / "archface.py").LResNet100,
        "from": lambda: module("from_fpn", options["from"] / "lib/models/fpn.py").LResNet50E_IR_Occ(num_mask=226),
        "pnet": lambda: facenet.models.mtcnn.PNet(pretrained=False),
        "rnet": lambda: facenet.models.mtcnn.RNet(pretrained=False),
        "onet": lambda: facenet.models.mtcnn.ONet(pretrained=False),
    }
    keys, arrays = {}, {}
    for name, build in networks.items():
        network = build()
        shapes = {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}
        keys[name] = shape_lines(shapes)
        if name in CROP_SIZES:
            state = {key: torch.from_numpy(array) for key, array in made_up_state(name, shapes).items()}
            network.load_state_dict(state)
            arrays[f"{name} output"] = outputs_of(name, network, facenet)
    (HERE / "face_networks.json").write_text(json.dumps(keys, indent=0) + "\n")
    arrays |= mtcnn_golden(facenet, options["adaface"].resolve())
    np.savez_compressed(HERE / "face_networks.npz", **arrays)


if __name__ == "__main__":
    main()
