"""Triton's Python backend loads this file; what it does is in `id3pm.serving`."""

import triton_python_backend_utils as pb_utils

from id3pm.serving.models.backend_model import TritonModel
from id3pm.serving.models.face_embedding import FaceModel


class TritonPythonModel(TritonModel):
    """Photograph -> ID vector."""

    backend, kind = pb_utils, FaceModel
