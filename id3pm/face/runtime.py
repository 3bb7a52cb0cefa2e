"""Opens the ONNX files of the face stage with onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from id3pm.errors import EngineError, EngineMissingError, MissingExtraError
from id3pm.installation import how_to_install


def open_session(model: Path, threads: int | None) -> Any:
    """An onnxruntime CPU session.

    Args:
        model: The ONNX file.
        threads: Threads inside one operator, or `None` for onnxruntime's choice (all cores). Results do not depend on
            it. Dataset workers and tests use 1: one process per core beats threads for networks this small.

    Raises:
        EngineMissingError: There is no such file.
        EngineError: onnxruntime cannot load it.
        MissingExtraError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError(f"the face stage needs onnxruntime: {how_to_install('face')}") from error
    if threads is not None and threads < 1:
        raise EngineError(f"threads={threads}: must be None (all cores) or at least 1")
    if not model.is_file():
        raise EngineMissingError(f"there is no {model.name}: build the face models with id3pm build-faces")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exception classes are private and change between versions
        reason = str(error).replace(str(model), model.name)  # messages carry no paths of a server
        raise EngineError(f"{model.name} cannot be loaded by onnxruntime: {reason}") from error
