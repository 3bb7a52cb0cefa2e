"""Golden LPIPS distances, computed by the original's own module.

    PYTHONPATH=.:/path/to/unpacked/lpips-wheel python tests/golden/make_lpips_golden.py

lpips 0.1.4 is https://github.com/richzhang/PerceptualSimilarity (BSD-2). torchvision's AlexNet is
stubbed by its layers. Nothing of id3pm is imported here.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch
from torch import nn

from tests.golden.lpips_case import case_backbone, case_channels, case_images


def alexnet(pretrained: bool) -> SimpleNamespace:
    """torchvision's `alexnet().features`."""
    features = nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
    )  # fmt: skip
    features.load_state_dict({name.removeprefix("features."): value for name, value in case_backbone().items()})
    return SimpleNamespace(features=features)


def main() -> None:
    torchvision = mock.MagicMock()
    torchvision.models = SimpleNamespace(alexnet=alexnet)
    for name in ("skimage", "skimage.color", "IPython"):
        sys.modules.setdefault(name, mock.MagicMock())
    sys.modules["torchvision"] = torchvision
    import lpips

    network = lpips.LPIPS(pretrained=False, net="alex", verbose=False)
    missing, unexpected = network.load_state_dict(case_channels(), strict=False)
    # `lins` holds the same layers by another name.
    assert not unexpected and not any(name.startswith("lin") and name[3] != "s" for name in missing), missing
    images = torch.from_numpy(case_images()).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    with torch.inference_mode():
        golden = [network(images[a, None], images[b, None]).item() for a, b in itertools.combinations(range(3), 2)]
    Path(__file__).with_name("lpips.json").write_text(json.dumps(golden) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
