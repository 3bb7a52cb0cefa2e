"""Triton's Python backend loads this file; what it does is in `id3pm.serving`."""

import triton_python_backend_utils as pb_utils

from id3pm.serving.models.backend_model import TritonModel
from id3pm.serving.models.diffusion_stages import DenoiserModel


class TritonPythonModel(TritonModel):
    """ID vector and seed -> 64 px image."""

    backend, kind = pb_utils, DenoiserModel
