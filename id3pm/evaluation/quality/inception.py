"""Inception's features, for FID and KID as published: torch-fidelity's network with weights that the user brings.

The weights are `weights-inception-2015-12-05-6726825d.pth` of torch-fidelity's releases, converted from the TensorFlow
graph of the original FID. Enlargement is TensorFlow 1's, exactly.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from id3pm.errors import EngineError, MissingExtraError
from id3pm.formats.hashing import file_sha256
from id3pm.unet.checkpoint import read_plain

PUBLISHED_SHA256 = "6726825d"
"""First digits of the file's SHA-256, which its published name ends with."""
DIM = 2048
BATCH = 16
HOW = "Inception's features need torch-fidelity and torchvision: pip install torch-fidelity==0.4.0"


class Inception:
    """Pictures in, pooled features out.

    Args:
        file: The weights.

    Raises:
        EngineError: The file is another one; nothing of it has been loaded then.
        CheckpointError: It holds more than tensors.
        MissingExtraError: torch-fidelity is not installed.
    """

    name = "Inception"
    key = f"Inception {PUBLISHED_SHA256} torch-fidelity"
    frechet_name, kernel_name = "FID", "KID"

    def __init__(self, file: Path) -> None:
        found = file_sha256(file)
        if not found.startswith(PUBLISHED_SHA256):
            raise EngineError(
                f"{file.name} has SHA-256 {found[:8]}...: that of the published Inception weights begins with "
                f"{PUBLISHED_SHA256}"
            )
        try:
            import torch
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise MissingExtraError(HOW) from error
        read_plain(file)  # torch-fidelity would unpickle anything
        self._torch: Any = torch
        self._network = FeatureExtractorInceptionV3("inception", [str(DIM)], feature_extractor_weights_path=str(file))

    def features(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features of uint8 [N, H, W, 3], RGB: float32 [N, 2048]."""
        parts = [np.empty((0, DIM), np.float32)]
        for start in range(0, len(images), BATCH):
            pixels = np.ascontiguousarray(images[start : start + BATCH].transpose(0, 3, 1, 2))
            with self._torch.inference_mode():
                (found,) = self._network(self._torch.from_numpy(pixels))
            parts.append(found.numpy())
        return np.concatenate(parts)
