"""Triton's Python backend loads this file; what it does is in `id3pm.serving`."""

from __future__ import annotations

from typing import Any

import triton_python_backend_utils as pb_utils

from id3pm.serving.models.face_embedding import FaceModel


class TritonPythonModel:
    """Default (not decoupled) mode: `execute` enqueues and returns; answers come from the model's own thread."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the detector and the face-recognition model."""
        self.model = FaceModel(pb_utils, args)

    def execute(self, requests: list[Any]) -> None:
        """Takes requests; each is answered exactly once, later."""
        for request in requests:
            self.model.answer(request)

    def finalize(self) -> None:
        """Ends the thread."""
        self.model.close()
