"""A bundle's training card in words: the data, training, computing time and figures of its model card."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from id3pm.formats.bundle import STAGES

TO_DO = "**To be filled in:**"
"""Beginning of a paragraph that only the author can write."""
SIZES = {"base": "the 64 px network", "sr": "super-resolution"}


def _data(card: Mapping[str, Any]) -> list[str]:
    rows = []
    for stage in STAGES:
        data = card.get(stage, {}).get("data")
        if data:
            about = data.get("description", {})
            source = about.get("source", about.get("kind", "not recorded"))
            size = f"{about['image_size']} px" if "image_size" in about else "not recorded"
            rows.append((SIZES[stage], str(source), f"{data.get('images', 0):,}", size))
    if not rows:
        return [f"{TO_DO} `bundle.json` does not say what the networks were trained on."]
    return table(("", "source", "faces", "size"), rows)


def _training(card: Mapping[str, Any]) -> list[str]:
    if "converted_from" in card:
        files = ", ".join(f"`{name}`" for name in card["converted_from"].values())
        return [f"Converted from the checkpoints {files}; {TO_DO} how they were trained."]
    rows = []
    for stage in STAGES:
        found = card.get(stage, {})
        if "images_seen" in found:
            before = found.get("started_from", {}).get("images_seen", 0)
            rows.append(
                (
                    SIZES[stage],
                    f"{found['images_seen'] + before:,}",
                    str(found["batch_size"]),
                    f"{found['learning_rate']:g}",
                    found["weights"],
                    _departs(found),
                )
            )
    if not rows:
        return [f"{TO_DO} `bundle.json` does not say how the networks were trained."]
    return table(("", "images seen", "batch", "learning rate", "weights", "departs from the paper in"), rows)


def _departs(found: Mapping[str, Any]) -> str:
    """What a stage's training does otherwise than the paper's; of a student, its teacher and how it learned."""
    told = ", ".join(f"{name} {value}" for name, value in found.get("deviations_from_paper", {}).items())
    if (teacher := found.get("teacher")) is None:
        return told
    how = ", ".join(f"{name} {value}" for name, value in found.get("distillation", {}).items())
    return f"student of bundle {teacher['bundle']}, weights `{teacher['weights_sha256'][:12]}`: {how}"


def _compute(card: Mapping[str, Any]) -> list[str]:
    lines = []
    for stage in STAGES:
        found = card.get(stage, {})
        if "training_seconds" in found:
            last = "the last run" if "started_from" in found else "the run"
            lines.append(
                f"- {SIZES[stage]}: {last} took {found['training_seconds'] / 3600:.1f} h on {found['hardware']}"
            )
    return lines or [f"{TO_DO} `bundle.json` does not say how long the training took, and on what."]


def _figures(card: Mapping[str, Any]) -> list[str]:
    measured = card.get("measured", {})
    lines: list[str] = []
    if "identity" in measured:
        lines += _identity(measured["identity"])
    if "super_resolution" in measured:
        lines += (
            ["", *_super_resolution(measured["super_resolution"])]
            if lines
            else _super_resolution(measured["super_resolution"])
        )
    return lines or [f"{TO_DO} nothing has been measured: `id3pm evaluate identity`, then `id3pm evaluate card`."]


def _identity(found: Mapping[str, Any]) -> list[str]:
    judges = list(found["yardsticks"])
    rows: list[tuple[str, ...]] = []
    for name, key in (("different people", "impostors"), ("the same picture, altered", "same_face_bound")):
        rows.append((name, *(part for judge in judges for part in (_number(found["yardsticks"][judge][key]), "", ""))))
    for setting in found["settings"]:
        label = f"{setting['sampler']}, {steps(setting['steps'])}, guidance {setting['guidance_scale']:g}"
        if setting.get("guidance_low", 0) > 0:
            label += f" at timesteps {setting['guidance_low']} .. {setting['guidance_high']}"
        opinions = (setting[judge] for judge in judges)
        shown = (
            (_number(one["similarity"]), _percent(one["verification"]), _percent(one["no_face"])) for one in opinions
        )
        rows.append((label, *(part for three in shown for part in three)))
    heads = tuple(f"{judge}: {what}" for judge in judges for what in ("similarity", "verification", "no face"))
    roles = {True: "gave the ID vectors", False: "was not used in training"}
    seen = [f"{judge} {roles[bool(found['yardsticks'][judge]['seen_in_training'])]}" for judge in judges]
    subject = found["subject"]
    intro = (
        f"Identity of {found['identities']} people held out from training ({subject['size']} px images, "
        f"{subject['precision']} engines): mean cosine similarity to the target, verification accuracy by the LFW "
        f"protocol, and images in which no face was found. Judges: {'; '.join(seen)}."
    )
    return [intro, "", *table(("", *heads), rows)]


def _super_resolution(found: Mapping[str, Any]) -> list[str]:
    rows = [
        (
            f"{pictures['count']} {pictures['pictures']}, {pictures['sizes'][0]} -> {pictures['sizes'][1]} px",
            method,
            f"{pictures[method]['psnr']:.1f} dB",
            f"{pictures[method]['ssim']:.3f}",
            _number(pictures[method].get("perceptual")),
            _number(pictures[method]["identity"]),
        )
        for pictures in found["pictures"]
        for method in ("lanczos", "network")
    ]
    return [
        "Super-resolution against Lanczos enlargement.",
        "",
        *table(("", "method", "PSNR", "SSIM", "perceptual distance", "identity"), rows),
    ]


_PARTS: Mapping[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "data": _data,
    "training": _training,
    "figures": _figures,
    "compute": _compute,
}


def in_words(card: Mapping[str, Any]) -> dict[str, list[str]]:
    """Lines of Markdown by part of the model card: `data`, `training`, `figures`, `compute`."""
    return {name: _read(tell, card) for name, tell in _PARTS.items()}


def _read(tell: Callable[[Mapping[str, Any]], list[str]], card: Mapping[str, Any]) -> list[str]:
    """One part of a training card, which is free-form JSON: only the form of this package is known."""
    try:
        return tell(card)
    except (AttributeError, KeyError, TypeError, ValueError):
        return [f"{TO_DO} the training card in `bundle.json` has a form of its own; put it into words here."]


def steps(count: int) -> str:
    """`1 step`, `2 steps`."""
    return f"{count} step{'' if count == 1 else 's'}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
