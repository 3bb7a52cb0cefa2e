"""The receipt of an image: everything that is needed to make it again, as a JSON object.

    {"schema": 1, "id3pm": version, "bundle": name, "seed": 7, "id_vector_sha256": hex or null,
     "stages": {"base": {"options": {...}, "engine_sha256": hex, "weights_sha256": hex, "engine": description},
                "sr": {the same}}}

A stage whose bundle or engine was pulled has `"sources": {"bundle": address, "engine": address}` too: where the bytes
came from. The hashes say what they are.

A stage whose engine has `fast` buckets (`id3pm.engines.buckets`) has `"buckets": "fast"` and `"company"`, how far an
image made alone may be from the same image made among others (`Parity.company`).

The ID vector is named by its hash only: it is biometric data and belongs to the caller.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from id3pm import __version__
from id3pm.config import SamplingOptions, to_json
from id3pm.engines.inputs import FloatArray
from id3pm.engines.manifest import Manifest
from id3pm.errors import InvalidInputError

SCHEMA = 1
Receipt = dict[str, Any]


def new_receipt(bundle: str, seed: int, identity: FloatArray | None) -> Receipt:
    """A receipt without stages.

    Args:
        bundle: Name of the bundle.
        seed: The request's seed.
        identity: The request's ID vector, or `None` where none is known.
    """
    return {
        "schema": SCHEMA,
        "id3pm": __version__,
        "bundle": bundle,
        "seed": seed,
        "id_vector_sha256": None if identity is None else id_vector_sha256(identity),
        "stages": {},
    }


def add_stage(
    receipt: Receipt, manifest: Manifest, engine: str, options: SamplingOptions, attributes: FloatArray | None = None
) -> Receipt:
    """A copy of a receipt to which one stage has been added.

    Args:
        receipt: The receipt so far.
        manifest: Manifest of the engine that sampled.
        engine: The engine's description.
        options: The options that were used.
        attributes: The attribute vector of the request, if it had one.
    """
    used = to_json(options)
    if manifest.stage == "base":
        del used["consistency"]  # an option of super-resolution only
    stage = {
        "options": {**used, **({} if attributes is None else {"attributes": attributes.tolist()})},
        "engine_sha256": manifest.file_sha256,
        "weights_sha256": manifest.bundle.weights_sha256,
        "engine": engine,
    }
    if manifest.buckets == "fast":
        stage |= {"buckets": "fast", "company": manifest.parity.company}
    sources = {"bundle": manifest.bundle.source, "engine": manifest.source}
    if found := {what: address for what, address in sources.items() if address is not None}:
        stage["sources"] = found
    return {**receipt, "stages": {**receipt["stages"], manifest.stage: stage}}


def parse_receipt(text: str) -> Receipt:
    """A receipt from its JSON text.

    Raises:
        InvalidInputError: It is not the JSON object of a receipt.
    """
    try:
        receipt = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError("the receipt is not JSON; send it as the 64 px stage gave it") from error
    if not isinstance(receipt, dict) or receipt.get("schema") != SCHEMA or not isinstance(receipt.get("stages"), dict):
        raise InvalidInputError(f"this is no receipt of schema {SCHEMA}; send it as the 64 px stage gave it")
    return receipt


def id_vector_sha256(identity: FloatArray) -> str:
    """sha256 (hex) of an ID vector's float32 [D] bytes, little-endian."""
    return hashlib.sha256(np.ascontiguousarray(identity, dtype="<f4").tobytes()).hexdigest()
