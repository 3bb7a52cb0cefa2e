"""Triton loads this as model.py of the baseline: request-level batching, as it is done without a step scheduler.

`execute` gets the requests that Triton's dynamic batcher has put together, runs both stages for them from the first
step to the last, and only then takes the next batch. Requests of a batch with unequal options cannot share a loop:
each group of equal ones runs on its own, the shortest loop first, and is answered as soon as it is done. That is the
kinder choice to short requests than padding all to the longest loop, and costs nothing where an engine's time is
proportional to its rows, as on a CPU.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from id3pm.errors import Id3pmError
from id3pm.pipeline import Pipeline
from id3pm.serving.models.model_args import threads

OPTIONS = ("steps", "sr_steps")


class TritonPythonModel:
    """The in-process pipeline behind Triton's dynamic batcher: same engines, same samplers, same images."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads both engines."""
        parameters = json.loads(args["model_config"])["parameters"]
        engines, device = (parameters[name]["string_value"] for name in ("engines", "device"))
        self._pipeline = Pipeline.load(engines, device, threads=threads())

    def execute(self, requests: list[Any]) -> None:
        """Runs a batch to its end."""
        groups: dict[tuple[tuple[str, int], ...], list[Any]] = {}
        for request in requests:
            given = {name: pb_utils.get_input_tensor_by_name(request, name) for name in OPTIONS}
            options = tuple((name, int(t.as_numpy().item())) for name, t in given.items() if t is not None)
            groups.setdefault(options, []).append(request)
        for options in sorted(groups, key=lambda options: sum(steps for _, steps in options)):
            self._run(groups[options], dict(options))

    def finalize(self) -> None:
        """Frees the engines."""
        self._pipeline.close()

    def _run(self, requests: list[Any], options: dict[str, int]) -> None:
        vectors = np.concatenate([self._array(request, "embedding") for request in requests])
        seeds = [int(self._array(request, "seed").item()) for request in requests]
        try:
            made = self._pipeline.generate(vectors, seeds, **options)
        except Id3pmError as error:
            code = pb_utils.TritonError.INVALID_ARG
            self._answer(requests, [pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), code))])
            return
        self._answer(
            requests,
            [
                pb_utils.InferenceResponse(
                    [
                        pb_utils.Tensor("image", made.images[i][None]),
                        pb_utils.Tensor("image_64", made.images_64[i][None]),
                        pb_utils.Tensor("receipt", np.array([[json.dumps(made.receipts[i]).encode()]], dtype=object)),
                    ]
                )
                for i in range(len(requests))
            ],
        )

    @staticmethod
    def _answer(requests: list[Any], responses: list[Any]) -> None:
        for index, request in enumerate(requests):
            response = responses[min(index, len(responses) - 1)]  # an error is the same for all requests
            request.get_response_sender().send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    @staticmethod
    def _array(request: Any, name: str) -> np.ndarray:
        return np.array(pb_utils.get_input_tensor_by_name(request, name).as_numpy())
