"""The PyTorch U-Net of a bundle as an engine: in fp32 on the CPU the reference of the parity gate; on a GPU a peer.

On a GPU inputs and output stay there, and every batch bucket is one CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from id3pm.engines.arrays import HOST, Array, Arrays
from id3pm.engines.buckets import batch_buckets, bucket_of
from id3pm.engines.inputs import EngineInputs, assert_inputs, input_shapes
from id3pm.engines.manifest import BUILD_HINT, Manifest
from id3pm.errors import EngineError, MissingExtraError
from id3pm.formats.bundle import Stage, load_weights, read_bundle
from id3pm.formats.weights import read_weights
from id3pm.installation import how_to_install

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from id3pm.unet.model import UNet

TorchPrecision = Literal["fp32", "fp16", "bf16"]


class UNetEngine:
    """An `Engine` over a PyTorch U-Net."""

    def __init__(
        self,
        unet: UNet,
        max_batch: int = 16,
        device: str = "cpu",
        precision: TorchPrecision = "fp32",
        arrays: Arrays | None = None,
        buckets: Sequence[int] | None = None,
        compiled: bool = False,
    ) -> None:
        """Moves the network to a device, and records a CUDA graph for every bucket where that is a GPU.

        Args:
            unet: The network; it is changed.
            max_batch: Most rows of one call.
            device: A torch device.
            precision: Of the convolutions between the first layers and the last; see `UNet.convert`.
            arrays: Where inputs and output live; `None`: in host memory for the CPU, else on the device.
            buckets: Batch sizes to which calls are padded, `max_batch` among them; `None`: `batch_buckets` on a GPU,
                none elsewhere.
            compiled: Compile the network: see `torch_compiled`.

        Raises:
            EngineError: This PyTorch cannot compile it.
        """
        import torch

        from id3pm.engines.torch_arrays import TorchArrays
        from id3pm.engines.torch_compiled import compiled_network

        self._torch = torch
        self._device = torch.device(device)
        self.config = unet.config
        self.max_batch = max_batch
        self.arrays: Arrays = arrays or (HOST if device == "cpu" else TorchArrays(device))
        how = f"{precision} compiled" if compiled else precision
        self.description = f"torch {torch.__version__} {_kind(self._device)} {how}"
        self._unet = unet.to(self._device)
        half = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
        if half is not None:
            self._unet.convert(half)
        self._buckets = list(buckets or (batch_buckets(max_batch) if self._device.type == "cuda" else []))
        self._graphs: dict[int, Callable[[dict[str, Tensor]], Tensor]] = {}
        self._network: Callable[..., Tensor] = compiled_network(self._unet) if compiled else self._unet
        if self._device.type == "cuda":
            self.arrays.use()
            self._unet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            with torch.inference_mode():
                self._graphs = {rows: self._record(rows) for rows in self._buckets}

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(parameter.numel() for parameter in self._unet.parameters())

    def run(self, inputs: EngineInputs) -> Array:
        """Evaluates the U-Net; see `Engine.run`."""
        rows = assert_inputs(self.config, self.max_batch, inputs)
        with self._torch.inference_mode():
            if self.arrays is not HOST:
                return self._evaluate(inputs, rows)
            tensors = {name: self._torch.from_numpy(array).to(self._device) for name, array in inputs.items()}
            return self._evaluate(tensors, rows).cpu().numpy()

    def _evaluate(self, tensors: dict[str, Tensor], rows: int) -> Tensor:
        size = bucket_of(rows, self._buckets) if self._buckets else rows
        if self._graphs:
            return self._graphs[size](tensors)
        if size > rows:
            tensors = {
                name: self._torch.cat([tensor, tensor.new_zeros((size - rows, *tensor.shape[1:]))])
                for name, tensor in tensors.items()
            }
        return self._computed(tensors)[:rows]

    def _computed(self, tensors: dict[str, Tensor]) -> Tensor:
        """The network's output, by kernels whose fp32 is fp32 (cuDNN would take TF32) and that repeat their bits."""
        chosen = self._torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        with chosen:
            output: Tensor = self._network(**tensors).float().contiguous()
        return output

    def _record(self, rows: int) -> Callable[[dict[str, Tensor]], Tensor]:
        """One batch size as a CUDA graph; the rows beyond a call's own compute on left-overs."""
        torch = self._torch
        given = {
            name: torch.zeros(shape, device=self._device) for name, shape in input_shapes(self.config, rows).items()
        }
        aside = torch.cuda.Stream(self._device)
        aside.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(aside):
            for _ in range(3):  # the first runs compile, choose kernels and allocate
                self._computed(given)
        torch.cuda.current_stream(self._device).wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = self._computed(given)

        def replay(inputs: dict[str, Tensor]) -> Tensor:
            used = inputs["x"].shape[0]
            for name, tensor in inputs.items():
                given[name][:used].copy_(tensor)
            graph.replay()
            made: Tensor = output[:used].clone()
            return made

        return replay

    def close(self) -> None:
        """Drops the graphs and the weights."""
        self._graphs.clear()
        del self._unet, self._network


class TorchEngine(UNetEngine):
    """A `UNetEngine` over a bundle's weights, on the CPU by default."""

    def __init__(
        self,
        bundle: str | Path,
        stage: Stage,
        max_batch: int = 16,
        device: str = "cpu",
        image_size: int | None = None,
        precision: TorchPrecision = "fp32",
        arrays: Arrays | None = None,
    ) -> None:
        """Builds the U-Net of one stage.

        Args:
            bundle: A bundle folder.
            stage: `base` or `sr`.
            max_batch: Most rows of one call.
            device: A torch device.
            image_size: Run the convolutional network at another size than it is deployed with, in pixels; see
                `UNetConfig.at_size`.
            precision: See `UNetEngine`.
            arrays: See `UNetEngine`.

        Raises:
            MissingExtraError: torch is not installed.
            BundleError: The folder is incomplete or damaged.
            ConfigError: The network does not exist at this image size.
        """
        require_torch()
        from id3pm.unet.model import load_unet

        description = read_bundle(bundle)
        config = description.base if stage == "base" else description.sr
        config = config if image_size is None else config.at_size(image_size)
        unet = load_unet(config, load_weights(bundle, stage))
        super().__init__(unet, max_batch, device, precision, arrays)


class TorchCudaEngine(UNetEngine):
    """A `UNetEngine` over an engine folder of target `torch-cuda`, on a CUDA GPU."""

    def __init__(self, path: Path, manifest: Manifest, device_index: int = 0) -> None:
        """Loads the weights, and records a CUDA graph for every bucket.

        Args:
            path: The `.safetensors` file.
            manifest: The engine's manifest.
            device_index: Number of the CUDA device.

        Raises:
            MissingExtraError: torch is not installed.
            EngineError: PyTorch sees no such GPU, is another version than the manifest's, or cannot run the network.
        """
        require_torch()
        from id3pm.engines.torch_arrays import TorchArrays
        from id3pm.unet.model import load_unet

        require_version(manifest)
        device = cuda_device(device_index)
        buckets = batch_buckets(manifest.max_batch, manifest.buckets)
        precision = cast(TorchPrecision, manifest.precision)
        unet = load_unet(manifest.unet, read_weights(path))
        try:
            arrays = TorchArrays(device)
            super().__init__(unet, manifest.max_batch, device, precision, arrays, buckets, manifest.compiled)
        except RuntimeError as error:  # CUDA's errors, no memory, and what cannot be compiled
            raise EngineError(f"PyTorch cannot run this engine on {device}: {error}") from error


def require_torch() -> None:
    """Refuses to go on without PyTorch.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(f"torch is not installed; run: {how_to_install('export')}") from error


def require_version(manifest: Manifest) -> None:
    """Refuses an engine that was proven with another PyTorch, whose kernels may be others.

    Raises:
        EngineError: The installed version is not the manifest's.
    """
    import torch

    built, here = (str(version).partition("+")[0] for version in (manifest.versions.get("torch"), torch.__version__))
    if built != here:
        raise EngineError(f"torch {here} is installed, the engine was built by {built}; {BUILD_HINT}")


def cuda_device(index: int) -> str:
    """PyTorch's name of a CUDA device.

    Raises:
        EngineError: PyTorch sees no such device.
    """
    import torch

    count = torch.cuda.device_count()
    if index >= count:
        raise EngineError(f"PyTorch {torch.__version__} sees {count} CUDA devices, asked for is number {index} from 0")
    return f"cuda:{index}"


def _kind(device: torch.device) -> str:
    """What decides the bits of a device: `cpu`, or the compute capability of a GPU."""
    if device.type != "cuda":
        return str(device)
    import torch

    major, minor = torch.cuda.get_device_capability(device)
    return f"sm{major}{minor}"
