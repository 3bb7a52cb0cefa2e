"""The wire: models, tensors, options.

`tests/contract` compares it with the server's files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypedDict

import numpy as np

ID3PM = "id3pm"
ID3PM_PHOTO = "id3pm_photo"
FACE_EMBEDDING = "face_embedding"
DENOISER_64 = "denoiser_64"
SUPER_RESOLUTION = "super_resolution"
# The models that keep a request for long, and answer `control` about it.
STAGES = (DENOISER_64, SUPER_RESOLUTION)

CONTROL = "control"
STATUS = "status"
MAX_SEED = 2**63 - 1
DETECTION_LENGTH = 15
PNG_RECEIPT_KEY = "id3pm"
PNG_XMP_KEY = "XML:com.adobe.xmp"
GENERATED_XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
    ' Iptc4xmpExt:DigitalSourceType="http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"/>'
    '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)
"""Says that a model made the picture: IPTC Photo Metadata Standard, Digital Source Type."""

DTYPES: Mapping[str, type[Any]] = MappingProxyType(
    {"FP32": np.float32, "INT64": np.int64, "INT32": np.int32, "UINT8": np.uint8, "BYTES": np.object_}
)


class Options(TypedDict, total=False):
    """Sampling options of `generate`; what is left out or `None` takes the default of the server's bundle."""

    preset: str | None
    sampler: str | None
    steps: int | None
    spacing: str | None
    guidance_scale: float | None
    guidance_low: int | None
    guidance_high: int | None
    dynamic_threshold: float | None
    eta: float | None
    attributes: Any
    attribute_values: str | None
    sr_sampler: str | None
    sr_steps: int | None
    sr_spacing: str | None
    sr_eta: float | None
    sr_consistency: float | None
    priority: int | None
    id_vector_model: str | None


@dataclasses.dataclass(frozen=True)
class Option:
    """One sampling option: its Triton data type and what it does. The server checks the range."""

    datatype: str
    help: str


OPTIONS: Mapping[str, Option] = MappingProxyType(
    {
        "preset": Option("BYTES", "all sampling options at once: paper, balanced or fast; others given beside it win"),
        "sampler": Option("BYTES", "64 px stage: ddpm, ddim or dpmpp_2m"),
        "steps": Option("INT32", "64 px stage: evaluations of the network; a single one gives noise"),
        "spacing": Option("BYTES", "64 px stage: time steps uniform, or uniform in logsnr"),
        "guidance_scale": Option("FP32", "how strongly the ID vector steers the image, 1 .. 10; 1 is no guidance"),
        "guidance_low": Option("INT32", "first training time step with guidance"),
        "guidance_high": Option("INT32", "last training time step with guidance"),
        "dynamic_threshold": Option("FP32", "percentile of dynamic thresholding; 0 clips instead"),
        "eta": Option("FP32", "64 px stage: noise of ddim, 0 to 1"),
        "attributes": Option("FP32", "attribute vector; -1 everywhere means none"),
        "attribute_values": Option("BYTES", "the attributes by name, as `describe` lists them: yaw=-20,smile=0.8"),
        "sr_sampler": Option("BYTES", "super-resolution: ddpm, ddim or dpmpp_2m"),
        "sr_steps": Option("INT32", "super-resolution: evaluations of the network; a single one gives noise"),
        "sr_spacing": Option("BYTES", "super-resolution: as spacing"),
        "sr_eta": Option("FP32", "super-resolution: noise of ddim, 0 to 1"),
        "sr_consistency": Option("FP32", "super-resolution: how closely it keeps to the 64 px image, 0 to 1"),
        "priority": Option("INT32", "class of the request in the server's queue; lower goes first"),
        "id_vector_model": Option("BYTES", "FR model of the ID vector; the server refuses another than its own"),
    }
)


@dataclasses.dataclass(frozen=True)
class Model:
    """The tensors of one served model that this client sends or asks for: name to Triton data type."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


_OPTION_TYPES = {name: option.datatype for name, option in OPTIONS.items()}
_IMAGES = {"image": "UINT8", "image_64": "UINT8", "receipt": "BYTES"}
_SR_OPTION_TYPES = {
    name: datatype
    for name, datatype in _OPTION_TYPES.items()
    if name.startswith("sr_") or name in ("preset", "priority")
}

MODELS: Mapping[str, Model] = MappingProxyType(
    {
        ID3PM: Model({"embedding": "FP32", "seed": "INT64", **_OPTION_TYPES}, _IMAGES),
        ID3PM_PHOTO: Model({"photo": "BYTES", "face": "BYTES", "seed": "INT64", **_OPTION_TYPES}, _IMAGES),
        FACE_EMBEDDING: Model(
            {"photo": "BYTES", "face": "BYTES"},
            {"embedding": "FP32", "detection": "FP32", "faces": "INT32", "turned": "INT32", "id_vector_model": "BYTES"},
        ),
        DENOISER_64: Model(
            {"embedding": "FP32", "seed": "INT64", **_OPTION_TYPES, CONTROL: "BYTES"},
            {"image_64": "UINT8", "receipt_64": "BYTES", STATUS: "BYTES"},
        ),
        SUPER_RESOLUTION: Model(
            {"image_64": "UINT8", "receipt_64": "BYTES", "seed": "INT64", **_SR_OPTION_TYPES, CONTROL: "BYTES"},
            {"image": "UINT8", "receipt": "BYTES", STATUS: "BYTES"},
        ),
    }
)
