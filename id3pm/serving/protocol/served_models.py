"""The served models in one table: inputs, outputs, and the steps of the ensembles.

`pbtxt.py` writes each `config.pbtxt` from it, for the sizes of a bundle; the gateway checks requests against it
(`SIGNATURES`). Tests compare the client's contract with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from id3pm.serving.protocol.wire import DEADLINE_IN, OPTIONS, Stage

STAGE_MODELS: Mapping[Stage, str] = MappingProxyType({"base": "denoiser_64", "sr": "super_resolution"})
FACE_MODEL = "face_embedding"
MAX_BATCH = 16
"""Images of one request."""
VERSION = "1"
"""The one version of every model."""
DTYPES: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {"FP32": np.dtype("<f4"), "INT32": np.dtype("<i4"), "INT64": np.dtype("<i8"), "UINT8": np.dtype("|u1")}
)
"""Data types of numbers. Each element of the other type, BYTES, has its length in four bytes before it."""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An input or output.

    Attributes:
        name: Name on the wire.
        dtype: Data type in Triton's words, without `TYPE_`.
        dims: Shape of one image's part; -1 is a length that the model checks. Strings stand for a size of the bundle:
            `base` (pixels of the base stage) and `sr` (of super-resolution).
    """

    name: str
    dtype: str
    dims: tuple[int | str, ...] = (1,)

    @property
    def datatype(self) -> str:
        """Data type in the words of Triton's protocol: a key of `DTYPES`, or `BYTES`."""
        return "BYTES" if self.dtype == "STRING" else self.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes for one image, behind the batch dimension; -1 is any, also where the bundle decides."""
        return tuple(size if isinstance(size, int) else -1 for size in self.dims)


@dataclasses.dataclass(frozen=True)
class Step:
    """One step of an ensemble; the inputs of its model are mapped by name.

    Attributes:
        model: The model.
        outputs: Its outputs that the next steps or the caller take.
        renamed: Input of this model -> another name for the output of an earlier step.
    """

    model: str
    outputs: tuple[str, ...]
    renamed: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServedModel:
    """One model of the repository. Every input is optional: the model itself reports missing ones.

    Attributes:
        comment: Lines at the head of its `config.pbtxt`; the first says what the model does.
        inputs: Of the model.
        outputs: Of the model.
        steps: Of an ensemble; empty for a model with a Python backend.
        parameters: Settings that an operator may change, with a comment for each.
    """

    comment: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    steps: tuple[Step, ...] = ()
    parameters: Mapping[str, int] = dataclasses.field(default_factory=dict)


def _options(*stages: Stage) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(option.name, option.dtype, (option.length,)) for option in OPTIONS if {*option.stages} & {*stages}
    )


_EMBEDDING = Tensor("embedding", "FP32", (-1,))
_ID_VECTOR = Tensor("id_vector", "FP32", (-1,))
_PHOTO = (Tensor("photo", "STRING"), Tensor("face", "STRING"))
_CONTROL, _STATUS = Tensor("control", "STRING", (-1,)), Tensor("status", "STRING")
_IMAGE_64, _IMAGE = Tensor("image_64", "UINT8", ("base", "base", 3)), Tensor("image", "UINT8", ("sr", "sr", 3))
_RECEIPT_64, _RECEIPT = Tensor("receipt_64", "STRING"), Tensor("receipt", "STRING")
_DEADLINE, _DEADLINE_64 = Tensor("deadline", "INT64"), Tensor("deadline_64", "INT64")
_PNG = Tensor("png", "STRING")
_TURNED = Tensor("turned", "INT32")

_FACE = Step("face_embedding", ("embedding", "deadline", "turned"))
_BASE = Step("denoiser_64", ("image_64", "receipt_64", "deadline_64"))
_ALL_OPTIONAL = (
    "Every input is optional so that a missing one gets the model's own message (Triton would answer "
    '"unexpected deadlock").'
)
_CONTROL_ALONE = (
    "Every input is optional because a control request carries `control` alone; the model checks what is needed."
)
_NOT_PRUNED = (
    "For `image_64` alone ask denoiser_64: Triton cannot prune a step whose input is an output of the ensemble."
)

MODELS: Mapping[str, ServedModel] = MappingProxyType(
    {
        "face_embedding": ServedModel(
            comment=(
                "Photograph (JPEG, PNG or WebP bytes, or their base64 text) -> ID vector of one face.",
                "`photo` is optional so that a missing one gets the model's own message, in ensembles too.",
                "`id_vector` is `embedding` once more, for ensembles that give both to the next step and to the "
                "caller:",
                "Triton prunes a step whose outputs are all outputs of the ensemble that were not requested, even "
                "where a later",
                "step needs them.",
                "`turned`: degrees counter-clockwise by which the photograph was turned to have its face upright.",
            ),
            inputs=(*_PHOTO, _CONTROL),
            outputs=(
                _EMBEDDING,
                _ID_VECTOR,
                Tensor("detection", "FP32", (15,)),
                Tensor("faces", "INT32"),
                _TURNED,
                Tensor("id_vector_model", "STRING"),
                _DEADLINE,
                _STATUS,
            ),
        ),
        "denoiser_64": ServedModel(
            comment=(
                "ID vector and seed -> 64 px image: the diffusion loop with classifier-free guidance.",
                _CONTROL_ALONE,
                "The options of super-resolution (sr_...) change nothing here: a bad one is refused before any work.",
                "`deadline` and `deadline_64` pass the time limit of an ensemble's request on: see `passed_on` in",
                "id3pm/serving/protocol/wire.py.",
            ),
            inputs=(_EMBEDDING, *_options("base", "sr"), _DEADLINE, _CONTROL),
            outputs=(_IMAGE_64, _RECEIPT_64, _DEADLINE_64, _STATUS),
            parameters={"max_rows": 16, "max_waiting": 256, "max_backlog_s": 120},
        ),
        "super_resolution": ServedModel(
            comment=(
                "64 px image and seed -> 256 px image: the super-resolution diffusion loop.",
                _CONTROL_ALONE,
            ),
            inputs=(_IMAGE_64, _RECEIPT_64, *_options("sr"), _DEADLINE_64, _CONTROL),
            outputs=(_IMAGE, _PNG, _RECEIPT, _STATUS),
            parameters={"max_rows": 8, "max_waiting": 256, "max_backlog_s": 120},
        ),
        "id3pm": ServedModel(
            comment=(
                "ID vector and seed -> faces at 64 px and 256 px, with the receipt that replays them.",
                _ALL_OPTIONAL,
                _NOT_PRUNED,
            ),
            inputs=(_EMBEDDING, *_options("base", "sr")),
            outputs=(_IMAGE, _IMAGE_64, _RECEIPT),
            steps=(_BASE, Step("super_resolution", ("image", "receipt"))),
        ),
        "id3pm_photo": ServedModel(
            comment=(
                "Photograph and seed -> faces of that person, with the ID vector that was found.",
                _ALL_OPTIONAL,
                _NOT_PRUNED,
            ),
            inputs=(*_PHOTO, *_options("base", "sr")),
            outputs=(_IMAGE, _IMAGE_64, _RECEIPT, _EMBEDDING, _TURNED),
            steps=(
                Step("face_embedding", ("embedding", "id_vector", "deadline", "turned")),
                dataclasses.replace(_BASE, renamed={"embedding": "id_vector"}),
                Step("super_resolution", ("image", "receipt")),
            ),
        ),
        "id3pm_png": ServedModel(
            comment=(
                "ID vector and seed -> a PNG as base64 text, for curl and browsers: POST "
                "/v2/models/id3pm_png/generate.",
                _ALL_OPTIONAL,
            ),
            inputs=(_EMBEDDING, *_options("base", "sr")),
            outputs=(_PNG, _RECEIPT),
            steps=(_BASE, Step("super_resolution", ("png", "receipt"))),
        ),
        "id3pm_photo_png": ServedModel(
            comment=(
                "Photograph and seed -> a PNG as base64 text, for curl and browsers (the photograph as base64 text).",
                _ALL_OPTIONAL,
            ),
            inputs=(*_PHOTO, *_options("base", "sr")),
            outputs=(_PNG, _RECEIPT, _TURNED),
            steps=(_FACE, _BASE, Step("super_resolution", ("png", "receipt"))),
        ),
    }
)


@dataclasses.dataclass(frozen=True)
class Signature:
    """The tensors of a model for callers: without those that models of an ensemble pass on (`DEADLINE_IN`)."""

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


def _by_name(tensors: tuple[Tensor, ...]) -> dict[str, Tensor]:
    return {tensor.name: tensor for tensor in tensors if tensor.name not in DEADLINE_IN}


SIGNATURES: Mapping[str, Signature] = {
    name: Signature(_by_name(model.inputs), _by_name(model.outputs))
    for name, model in sorted(MODELS.items(), key=lambda entry: not entry[1].steps)
}
"""By model, the ensembles first; `control` of face_embedding is the supervisor's alone."""
