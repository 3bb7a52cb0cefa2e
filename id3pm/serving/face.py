"""The face stage as a Triton model: photograph -> ID vector."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from id3pm.face.stage import FacePolicy, FaceResult, FaceStage
from id3pm.serving.logs import log_to_triton
from id3pm.serving.model_args import threads
from id3pm.serving.options import per_row
from id3pm.serving.triton import Call, Reply, read_call
from id3pm.serving.wire import Array, parse_faces, photo_bytes, strings


class FaceModel:
    """Detection, alignment and face recognition, one photograph after the other: some 20 ms each.

    Args:
        pb: Triton's `triton_python_backend_utils`.
        args: What Triton gives to `initialize`.
    """

    def __init__(self, pb: Any, args: Mapping[str, str]) -> None:
        self._pb = pb
        log_to_triton(pb)
        folder = Path(args["model_repository"]) / args["model_version"] / "engine"
        self._stage = FaceStage.load(folder, threads())

    def answer(self, request: Any) -> None:
        """Answers one request of the Python backend, exactly once, whatever happens."""
        reply = Reply(self._pb, request)
        try:
            reply.send(self._outputs(read_call(request)))
        except Exception as error:  # whatever it is, the caller must hear of it
            reply.fail(error)

    def _outputs(self, call: Call) -> dict[str, Array]:
        photos = call.tensor("photo").reshape(-1)
        policies = cast(list[FacePolicy], parse_faces(call.rows, call.tensors.get("face")))

        def embed(row: int) -> FaceResult:
            return self._stage.embed(photo_bytes(photos[row]), policies[row])

        results = per_row(call.rows, embed)
        embeddings = np.stack([result.embedding for result in results])
        outputs = {
            "embedding": embeddings,
            "id_vector": embeddings,  # see config.pbtxt
            "detection": np.stack([result.detection for result in results]),
            "faces": np.array([[result.faces] for result in results], dtype=np.int32),
            "id_vector_model": strings([self._stage.id_vector_model] * len(results)),
        }
        return {name: array for name, array in outputs.items() if name in call.wanted}
