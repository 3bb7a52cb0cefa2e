"""Triton's Python backend loads this file; what it does is in `id3pm.serving`."""

from __future__ import annotations

from typing import Any

import triton_python_backend_utils as pb_utils

from id3pm.serving.models.diffusion_stages import SuperResolutionModel


class TritonPythonModel:
    """Default (not decoupled) mode: `execute` enqueues and returns; answers come from the model's own threads."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the engine and starts the step scheduler."""
        self.model = SuperResolutionModel(pb_utils, args)

    def execute(self, requests: list[Any]) -> None:
        """Takes requests; each is answered exactly once, later."""
        for request in requests:
            self.model.accept(request)

    def finalize(self) -> None:
        """Ends the threads and frees the engine."""
        self.model.close()
