"""accelerate's part in a training step of one process, where accelerate is not installed: device, precision, compiler.

As accelerate does it: mixed precision is autocast over fp32 weights, fp16 with a scaler of gradients.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import torch

from accelerate.state import AcceleratorState

__all__ = ["Accelerator", "AcceleratorState"]
_HALF = {"no": None, "fp16": torch.float16, "bf16": torch.bfloat16}


class Accelerator:
    """One process on one device."""

    num_processes = 1
    process_index = 0
    is_main_process = True

    def __init__(self, cpu: bool = False, mixed_precision: str = "no", dynamo_backend: str | None = None) -> None:
        self.device = torch.device("cpu" if cpu or not torch.cuda.is_available() else "cuda:0")
        self._half = _HALF[mixed_precision]
        if mixed_precision == "fp16" and self.device.type == "cpu":
            raise ValueError("fp16 mixed precision requires a GPU (not 'cpu')")
        self._backend = dynamo_backend
        self.scaler = torch.amp.GradScaler(self.device.type) if mixed_precision == "fp16" else None

    def prepare(self, network: torch.nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, _Optimizer]:
        """The network on the device, and the optimiser; the scaler may leave out its step."""
        if self._half is not None:
            network.forward = self._in_precision(network.forward)
        network.to(self.device)
        given: Any = network if self._backend is None else torch.compile(network, backend=self._backend.lower())
        return given, _Optimizer(optimizer, self)

    def _in_precision(self, forward: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def run(*inputs: Any, **named: Any) -> torch.Tensor:
            with self.autocast():
                return forward(*inputs, **named).float()

        run.__wrapped__ = forward  # type: ignore[attr-defined]
        return run

    def unwrap_model(self, network: Any, keep_fp32_wrapper: bool = True, keep_torch_compile: bool = True) -> Any:
        """The network itself."""
        inner = network if keep_torch_compile else getattr(network, "_orig_mod", network)
        forward = inner.__dict__.get("forward")
        if not keep_fp32_wrapper and hasattr(forward, "__wrapped__"):
            inner.forward = forward.__wrapped__
        return inner

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Half precision where the run has one."""
        return contextlib.nullcontext() if self._half is None else torch.autocast(self.device.type, self._half)

    def backward(self, loss: torch.Tensor) -> None:
        """Gradients, scaled where there is a scaler."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def no_sync(self, network: Any) -> contextlib.AbstractContextManager[None]:
        """Nothing to hold back: one process."""
        return contextlib.nullcontext()

    def clip_grad_norm_(self, parameters: Iterable[torch.Tensor], norm: float) -> torch.Tensor:
        """Clips; gradients have no scale then."""
        if self.scaler is not None:
            self.scaler.unscale_(self._optimizer)
        return torch.nn.utils.clip_grad_norm_(parameters, norm)

    def wait_for_everyone(self) -> None:
        """Nobody else."""


class _Optimizer:
    def __init__(self, optimizer: torch.optim.Optimizer, accelerator: Accelerator) -> None:
        self._optimizer, self._scaler = optimizer, accelerator.scaler
        accelerator._optimizer = optimizer  # type: ignore[attr-defined]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self._optimizer.param_groups

    def step(self) -> None:
        if self._scaler is None:
            self._optimizer.step()
            return
        self._scaler.step(self._optimizer)
        self._scaler.update()

    def zero_grad(self, set_to_none: bool = True) -> None:
        self._optimizer.zero_grad(set_to_none=set_to_none)
