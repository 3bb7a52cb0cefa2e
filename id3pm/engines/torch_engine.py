"""The fp32 PyTorch U-Net of a bundle as an engine: the reference of the parity gate."""

from __future__ import annotations

from pathlib import Path

from id3pm.engines.arrays import HOST
from id3pm.engines.inputs import EngineInputs, FloatArray, assert_inputs
from id3pm.errors import MissingExtraError
from id3pm.formats.bundle import Stage, load_weights, read_bundle
from id3pm.installation import how_to_install


class TorchEngine:
    """An `Engine` over a bundle's weights in eager PyTorch, on the CPU by default."""

    def __init__(
        self,
        bundle: str | Path,
        stage: Stage,
        max_batch: int = 16,
        device: str = "cpu",
        image_size: int | None = None,
    ) -> None:
        """Builds the U-Net of one stage.

        Args:
            bundle: A bundle folder.
            stage: `base` or `sr`.
            max_batch: Most rows of one call.
            device: A torch device.
            image_size: Run the convolutional network at another size than it is deployed with, in pixels; see
                `UNetConfig.at_size`.

        Raises:
            MissingExtraError: torch is not installed.
            BundleError: The folder is incomplete or damaged.
            ConfigError: The network does not exist at this image size.
        """
        try:
            import torch

            from id3pm.unet.model import load_unet
        except ImportError as error:
            raise MissingExtraError(f"torch is not installed; run: {how_to_install('export')}") from error
        description = read_bundle(bundle)
        config = description.base if stage == "base" else description.sr
        self.config = config if image_size is None else config.at_size(image_size)
        self.arrays = HOST
        self.max_batch = max_batch
        self.description = f"torch {torch.__version__} {device} fp32"
        self._torch = torch
        self._device = device
        self._unet = load_unet(self.config, load_weights(bundle, stage)).to(device)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(parameter.numel() for parameter in self._unet.parameters())

    def run(self, inputs: EngineInputs) -> FloatArray:
        """Evaluates the U-Net; see `Engine.run`."""
        assert_inputs(self.config, self.max_batch, inputs)
        with self._torch.inference_mode():
            tensors = {name: self._torch.from_numpy(array).to(self._device) for name, array in inputs.items()}
            output: FloatArray = self._unet(**tensors).float().cpu().contiguous().numpy()
        return output

    def close(self) -> None:
        """Drops the weights."""
        del self._unet
