"""The client's contract and the documentation's tables of options and errors, from the server's tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from id3pm.config import MAX_SEED
from id3pm.error_codes import ERROR_CODES
from id3pm.face.detect import DETECTION_SIZE
from id3pm.formats.images import GENERATED_XMP, XMP_KEY
from id3pm.serving.protocol.served_models import FACE_MODEL, SIGNATURES, STAGE_MODELS
from id3pm.serving.protocol.wire import OPTIONS, Option

IMAGES = ("image", "image_64", "receipt")
USED: Mapping[str, tuple[str, ...]] = {
    "id3pm": IMAGES,
    "id3pm_photo": IMAGES,
    FACE_MODEL: ("embedding", "detection", "faces", "turned", "id_vector_model"),
    STAGE_MODELS["base"]: ("image_64", "receipt_64", "status"),
    STAGE_MODELS["sr"]: ("image", "receipt", "status"),
}
"""The models that the client uses, and the outputs that it reads."""
SUPERVISORS = {FACE_MODEL: ("control",)}
"""Inputs that are not for clients."""
TYPES = {"STRING": "str", "INT32": "int", "FP32": "float"}
NUMPY = {"FP32": "np.float32", "INT64": "np.int64", "INT32": "np.int32", "UINT8": "np.uint8", "BYTES": "np.object_"}
HEAD = '''"""The wire: models, tensors, options."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias, TypedDict

import numpy as np
import numpy.typing as npt

AttributeValues: TypeAlias = Mapping[str, float | str | None]
Attributes: TypeAlias = npt.ArrayLike | AttributeValues | Sequence[AttributeValues]
"""Vectors `[A]` or `[N, A]`, or names with values, one mapping for all images or one for each."""


@dataclasses.dataclass(frozen=True)
class Option:
    """One sampling option: its Triton data type and what it does. The server checks the range."""

    datatype: str
    help: str


@dataclasses.dataclass(frozen=True)
class Model:
    """The tensors of one served model that this client sends or asks for: name to Triton data type."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


class Options(TypedDict, total=False):
    """Sampling options of `generate`; what is left out or `None` takes the default of the server's bundle."""

'''
OPTION_COLUMNS = ("option", "type", "stage", "meaning")
ERROR_COLUMNS = ("code", "HTTP", "gRPC", "client", "send again", "when", "fields")


def options() -> list[Option]:
    """The sampling options; a seed is an argument of its own in the client."""
    return [option for option in OPTIONS if option.name != "seed"]


def contract() -> str:
    """The source of the client's `_contract.py`."""
    names = {"ID3PM": "id3pm", "ID3PM_PHOTO": "id3pm_photo", "FACE_EMBEDDING": FACE_MODEL}
    names |= {"DENOISER_64": STAGE_MODELS["base"], "SUPER_RESOLUTION": STAGE_MODELS["sr"]}
    return "\n".join(
        [
            HEAD + "\n".join(f"    {option.name}: {_type(option)} | None" for option in options()),
            "",
            *(f"{name} = {model!r}" for name, model in names.items()),
            "STAGES = (DENOISER_64, SUPER_RESOLUTION)",
            '"""The models that keep a request for long, and answer `control` about it."""',
            "CONTROL = 'control'",
            "STATUS = 'status'",
            f"MAX_SEED = {MAX_SEED}",
            f"DETECTION_LENGTH = {DETECTION_SIZE}",
            "PNG_RECEIPT_KEY = 'id3pm'",
            f"PNG_XMP_KEY = {XMP_KEY!r}",
            f"GENERATED_XMP = ({_lines(GENERATED_XMP)})",
            '"""Says that a model made the picture: IPTC Photo Metadata Standard, Digital Source Type."""',
            "DTYPES: Mapping[str, type[np.generic]] = MappingProxyType({",
            *(f"    {datatype!r}: {dtype}," for datatype, dtype in NUMPY.items()),
            "})",
            "ERROR_CODES: Mapping[str, str] = MappingProxyType({",
            *(f"    {row.code!r}: {row.exception!r}," for row in ERROR_CODES.values()),
            "})",
            '"""The server\'s error codes, and the exception that each becomes."""',
            "OPTIONS: Mapping[str, Option] = MappingProxyType({",
            *(f"    {option.name!r}: Option({_datatype(option)!r}, {option.help!r})," for option in options()),
            "})",
            "MODELS: Mapping[str, Model] = MappingProxyType({",
            *(f"    {model!r}: {_model(model, outputs)}," for model, outputs in USED.items()),
            "})",
        ]
    )


def options_table() -> str:
    """The options as a table in Markdown."""
    stages = {"base": "base", "sr": "super-resolution"}
    rows = [
        (f"`{option.name}`", TYPES[option.dtype], ", ".join(stages[stage] for stage in option.stages), option.help)
        for option in options()
    ]
    return _markdown(OPTION_COLUMNS, rows)


def errors_table() -> str:
    """The error codes as a table in Markdown."""
    return _markdown(
        ERROR_COLUMNS,
        [
            (
                f"`{row.code}`",
                str(row.http),
                row.grpc,
                f"`{row.exception}`",
                "yes" if row.retryable else "",
                row.meaning,
                ", ".join(f"`{name}`" for name in row.fields),
            )
            for row in ERROR_CODES.values()
        ],
    )


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows))


def _type(option: Option) -> str:
    return "Attributes" if option.length == -1 else TYPES[option.dtype]


def _datatype(option: Option) -> str:
    return "BYTES" if option.dtype == "STRING" else option.dtype


def _model(name: str, outputs: tuple[str, ...]) -> str:
    served = SIGNATURES[name]
    inputs = {key: tensor.datatype for key, tensor in served.inputs.items() if key not in SUPERVISORS.get(name, ())}
    return f"Model({inputs!r}, { {key: served.outputs[key].datatype for key in outputs}!r})"


def _lines(text: str, most: int = 90) -> str:
    return "\n".join(repr(text[start : start + most]) for start in range(0, len(text), most))
