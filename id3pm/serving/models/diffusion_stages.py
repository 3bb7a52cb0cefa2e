"""The two diffusion stages as Triton models."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

import numpy as np

from id3pm.diffusion.noise import STAGE_BASE, STAGE_SR
from id3pm.errors import InvalidInputError, InvalidOptionError
from id3pm.formats.images import encode_png, to_chw
from id3pm.sampling.receipt import Receipt, add_stage, new_receipt, parse_receipt
from id3pm.sampling.request import Sample, SampleRequest
from id3pm.serving.models.stage_model import StageInputs, StageModel
from id3pm.serving.models.triton_backend import InferenceRequest
from id3pm.serving.protocol.options import RowOptions
from id3pm.serving.protocol.wire import Array, strings, text

MAX_RECEIPT_BYTES = 64 * 1024
PNG_TEXT_KEY = "id3pm"


class DenoiserModel(StageModel):
    """ID vector and seed -> 64 px image: the diffusion loop with classifier-free guidance."""

    stage = "base"
    stage_index = STAGE_BASE
    source = "embedding"

    def inputs_of(self, call: InferenceRequest, row: int, options: RowOptions) -> StageInputs:
        """See `StageModel`."""
        self._check_vector(options)
        return {"identity": call.tensor(self.source)[row], "attributes": options.attributes}

    def outputs(
        self, call: InferenceRequest, requests: Sequence[SampleRequest], samples: Sequence[Sample]
    ) -> dict[str, Array]:
        """See `StageModel`."""
        made: dict[str, Array] = {}
        if "image_64" in call.wanted:
            made["image_64"] = np.stack([sample.image for sample in samples])
        if "receipt_64" in call.wanted:
            made["receipt_64"] = strings([json.dumps(self._receipt(request)) for request in requests])
        return made

    def _check_vector(self, row: RowOptions) -> None:
        taken = self.manifest.id_vector_model
        if row.id_vector_model is not None and row.id_vector_model != taken:
            raise InvalidOptionError(
                f"id_vector_model={row.id_vector_model[:64]!r}: this server's bundle takes ID vectors of {taken!r}; "
                "other models' mean nothing to it. Send one of that model, or leave id_vector_model out"
            )

    def _receipt(self, request: SampleRequest) -> Receipt:
        receipt = new_receipt(self.manifest.bundle.name, request.seed, request.identity)
        return add_stage(receipt, self.manifest, self.engine.description, request.options, request.attributes)


class SuperResolutionModel(StageModel):
    """64 px image and seed -> 256 px image: the super-resolution diffusion loop."""

    stage = "sr"
    stage_index = STAGE_SR
    source = "image_64"

    def inputs_of(self, call: InferenceRequest, row: int, options: RowOptions) -> StageInputs:
        """See `StageModel`."""
        self._receipt_so_far(call, row, options.seed)  # an error should come before the work, not after it
        return {"low_res": to_chw(call.tensor(self.source)[row])}

    def seed_of(self, call: InferenceRequest, row: int) -> int:
        """The seed of the 64 px image from its receipt, if any, because the 64 px stage may have drawn it."""
        seed = self._receipt_64(call, row).get("seed") if "receipt_64" in call.tensors else None
        return seed if type(seed) is int else super().seed_of(call, row)

    def outputs(
        self, call: InferenceRequest, requests: Sequence[SampleRequest], samples: Sequence[Sample]
    ) -> dict[str, Array]:
        """See `StageModel`."""
        images = [sample.image for sample in samples]
        receipts = [json.dumps(self._receipt(call, index, request)) for index, request in enumerate(requests)]
        made: dict[str, Array] = {}
        if "image" in call.wanted:
            made["image"] = np.stack(images)
        if "receipt" in call.wanted:
            made["receipt"] = strings(receipts)
        if "png" in call.wanted:
            made["png"] = strings([self._png(*picture) for picture in zip(images, receipts, strict=True)])
        return made

    def _png(self, image: Array, receipt: str) -> bytes:
        self.sign_of_life()
        return base64.b64encode(encode_png(image, {PNG_TEXT_KEY: receipt}, generated=True))

    def _receipt(self, call: InferenceRequest, index: int, request: SampleRequest) -> Receipt:
        receipt = self._receipt_so_far(call, index, request.seed)
        return add_stage(receipt, self.manifest, self.engine.description, request.options)

    def _receipt_so_far(self, call: InferenceRequest, index: int, seed: int) -> Receipt:
        """The receipt of the 64 px stage, or a new receipt for an image from elsewhere."""
        if "receipt_64" not in call.tensors:
            return new_receipt(self.manifest.bundle.name, seed, None)
        receipt = self._receipt_64(call, index)
        if receipt.get("seed") != seed:
            raise InvalidInputError(f"receipt_64 is of seed {receipt.get('seed')!r:.32}, the request has seed {seed}")
        return receipt

    @staticmethod
    def _receipt_64(call: InferenceRequest, index: int) -> Receipt:
        return parse_receipt(text("receipt_64", call.tensors["receipt_64"][index, 0], MAX_RECEIPT_BYTES))
