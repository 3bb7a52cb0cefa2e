"""Triton's Python backend loads this file; what it does is in `id3pm.serving`."""

from __future__ import annotations

from typing import Any

import triton_python_backend_utils as pb_utils

from id3pm.serving.face import FaceModel


class TritonPythonModel:
    """Default (not decoupled) mode: every request is answered before `execute` returns."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the detector and the face-recognition model."""
        self.model = FaceModel(pb_utils, args)

    def execute(self, requests: list[Any]) -> None:
        """Answers requests, each exactly once."""
        for request in requests:
            self.model.answer(request)
