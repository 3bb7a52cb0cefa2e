"""Answers of a stage to control requests, JSON-ready: what it serves, its state, the progress of a row."""

from __future__ import annotations

import base64

from id3pm.attributes import describe_fields
from id3pm.config import to_json
from id3pm.engines.manifest import Manifest
from id3pm.formats.images import encode_png
from id3pm.sampling.presets import PRESETS
from id3pm.sampling.status import RequestProgress, Status
from id3pm.serving.protocol.wire import Stage


def description(manifest: Manifest, stage: Stage, *, unit_vectors: bool) -> dict[str, object]:
    """The bundle, models and options that a stage serves.

    Args:
        manifest: Of its engine.
        stage: Which stage it is.
        unit_vectors: Whether ID vectors must have L2 norm 1.
    """
    return {
        "bundle": manifest.bundle.name,
        "id_vector_model": manifest.id_vector_model,
        "identity_dim": manifest.unet.identity_dim,
        "l2_normalised": unit_vectors,
        "attribute_set": manifest.attribute_set,
        "attributes": describe_fields(manifest.attribute_set) if stage == "base" else [],
        "image_size": manifest.unet.image_size,
        "defaults": to_json(manifest.sampling),
        "guidance_range": manifest.unet.guidance_range,
        "presets": {name: to_json(getattr(options, stage)) for name, options in PRESETS.items()},
    }


def status(found: Status, in_flight: int, answer_age_s: float) -> dict[str, object]:
    """The state of a stage.

    Args:
        found: Of its scheduler.
        in_flight: Requests that are not answered.
        answer_age_s: Seconds since the answering thread last made progress.
    """
    return {
        "active": found.active,
        "waiting": found.waiting,
        "paused": found.paused,
        "in_flight": in_flight,
        "loop_age_ms": round(found.loop_age_s * 1e3),
        "step_ms": round(found.step_s * 1e3, 3),
        "steps": found.steps,
        "answer_age_ms": round(answer_age_s * 1e3),
        "backlog_s": round(found.backlog_s, 3),
        "draining": found.draining,
    }


def row_progress(found: RequestProgress | None) -> dict[str, object]:
    """The progress of a row; `None` for one that is done while the request's other rows are not."""
    if found is None:
        return {"done": True}
    picture = found.preview
    png = None if picture is None else base64.b64encode(encode_png(picture, generated=True)).decode()
    return {"done": False, "step": found.step, "steps": found.steps, "preview_png": png}
