"""Responses of the servers as pictures, receipts and ID vectors."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping

import numpy as np
from PIL import Image

from id3pm_client import _contract as contract
from id3pm_client._errors import InternalServerError
from id3pm_client._images import Embedding
from id3pm_client._types import Array, JsonObject, Tensors


def parse_embedding(tensors: Tensors) -> Embedding:
    """The answer of `face_embedding`."""
    vector = _tensor(tensors, "embedding", np.float32)
    detection = _tensor(tensors, "detection", np.float32)
    faces = _tensor(tensors, "faces", np.int32)
    turned = _tensor(tensors, "turned", np.int32)
    models = _tensor(tensors, "id_vector_model", np.object_)
    if (
        turned.size != 1
        or vector.ndim != 1
        or models.size != 1
        or detection.shape != (contract.DETECTION_LENGTH,)
        or faces.size != 1
    ):
        raise InternalServerError(
            f"the server answered embedding {vector.shape}, detection {detection.shape}, faces {faces.shape}, "
            f"turned {turned.shape}, id_vector_model {models.shape}: expected [D], [{contract.DETECTION_LENGTH}], [1], "
            "[1] and [1]"
        )
    (model,) = models.reshape(-1)
    name = model.decode(errors="replace") if isinstance(model, bytes) else str(model)
    return Embedding(vector.copy(), detection.copy(), int(faces.reshape(())), name, int(turned.reshape(())))


def picture(tensors: Tensors, name: str) -> Image.Image:
    """The output `image` or `image_64`."""
    pixels = _tensor(tensors, name, np.uint8)
    if pixels.ndim != 3 or pixels.shape[0] != pixels.shape[1] or pixels.shape[2] != 3 or not pixels.size:
        raise InternalServerError(f"the server answered {name} of shape {pixels.shape}: expected [S, S, 3]")
    return Image.fromarray(pixels.copy())


def json_object(tensors: Tensors, name: str) -> JsonObject:
    """An output that is the text of one JSON object."""
    texts = _tensor(tensors, name, np.object_).reshape(-1)
    try:
        value = json.loads(texts[0]) if texts.size == 1 else None
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise InternalServerError(f"the server's {name} is not one JSON object")
    return value


def control_answer(tensors: Tensors) -> JsonObject:
    """The JSON object in the answer to a control call."""
    return json_object(tensors, contract.STATUS)


def description(base: Tensors, sr: Tensors) -> JsonObject:
    """The descriptions of both stages as one: options of super-resolution have the prefix `sr_`."""
    stages = {"": control_answer(base), "sr_": control_answer(sr)}
    merged = {name: value for name, value in stages[""].items() if name not in ("image_size", "defaults", "presets")}
    sizes = [stage.get("image_size") for stage in stages.values()]
    if None in sizes:  # an older server
        return merged
    try:
        return {
            **merged,
            "image_sizes": dict(zip(("image_64", "image"), sizes, strict=True)),
            "defaults": _options({prefix: stage["defaults"] for prefix, stage in stages.items()}),
            "presets": {
                name: _options({prefix: stage["presets"][name] for prefix, stage in stages.items()})
                for name in stages[""]["presets"]
            },
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise InternalServerError(f"the server's description lacks what it should tell: {error!r}") from None


def _options(stages: Mapping[str, JsonObject]) -> dict[str, object]:
    """The options of both stages, given by prefix, by their names on the wire."""
    return {
        prefix + name: value
        for prefix, options in stages.items()
        for name, value in options.items()
        if prefix + name in contract.OPTIONS
    }


def preview(png: object) -> Image.Image:
    """A preview, base64 of a PNG file, as RGB."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(str(png), validate=True))) as image:
            return image.convert("RGB")
    except (ValueError, OSError) as error:
        raise InternalServerError(f"the server's preview is no picture: {error}") from None


def _tensor(tensors: Tensors, name: str, dtype: type[np.generic]) -> Array:
    """One output without its batch dimension of 1."""
    tensor = tensors.get(name)
    if tensor is None or tensor.dtype != dtype or tensor.ndim == 0 or tensor.shape[0] != 1:
        found = "nothing" if tensor is None else f"{tensor.dtype} {tensor.shape}"
        raise InternalServerError(f"the server answered {found} as {name}: expected one row of {dtype.__name__}")
    row: Array = tensor[0]
    return row
