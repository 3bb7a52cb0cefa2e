"""MODEL_CARD.md of a bundle.

Fields after Mitchell et al., "Model Cards for Model Reporting", 2019, and Hugging Face's card template. Text between
marks is rewritten from `bundle.json`; all other text is the author's and is kept.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import click

from id3pm.formats.bundle import STAGES, Bundle, read_bundle, weights_hash

CARD_FILE = "MODEL_CARD.md"
TEMPLATE = "model_card.md"
TO_DO = "**To be filled in:**"
"""Beginning of a paragraph that only the author can write."""
_SIZES = {"base": "the 64 px network", "sr": "super-resolution"}


def write_card(folder: Path) -> Path:
    """Writes or renews a bundle's card.

    Args:
        folder: The bundle's; a card in it keeps its author's text.

    Returns:
        The card.

    Raises:
        BundleError: There is no readable bundle.
    """
    text = card_text(folder)
    file, partial = folder / CARD_FILE, folder / f".{CARD_FILE}.{os.getpid()}.tmp"
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)
    return file


def is_current(folder: Path) -> bool:
    """Whether a bundle has a card that says what its `bundle.json` says.

    Raises:
        BundleError: There is no readable bundle.
    """
    file = folder / CARD_FILE
    return file.exists() and file.read_text(encoding="utf-8") == card_text(folder)


def card_text(folder: Path) -> str:
    """The current card: the existing one or a new one, with the fields of the bundle filled in.

    Raises:
        BundleError: There is no readable bundle.
    """
    bundle = read_bundle(folder)
    file = folder / CARD_FILE
    text = file.read_text(encoding="utf-8") if file.exists() else _new(bundle)
    hashes: dict[str, str] = {stage: weights_hash(folder, stage) for stage in STAGES}
    parts = {
        "details": _details(bundle, hashes),
        "licence": [f"Weights: {bundle.licence}."],
        **{name: _told(tell, bundle.training_card) for name, tell in _TOLD.items()},
    }
    for name, lines in parts.items():
        text = _replaced(text, name, lines)
    if text.startswith("---\n"):
        _, end, rest = text.partition("\n---\n")
        text = "\n".join([*_front(bundle), rest]) if end else text
    return text


def card_for_hub(folder: Path) -> str:
    """The current card with the front matter that the Hugging Face Hub reads, for its README.md.

    Raises:
        BundleError: There is no readable bundle.
    """
    text = card_text(folder)
    return text if text.startswith("---\n") else "\n".join([*_front(read_bundle(folder)), "", text])


def to_fill_in(folder: Path) -> int:
    """How many paragraphs of a bundle's card the author still has to write."""
    return (folder / CARD_FILE).read_text(encoding="utf-8").count(TO_DO)


@click.command("card")
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if the card is missing or out of date.")
def card_command(bundle: Path, check: bool) -> None:
    """Write a bundle's MODEL_CARD.md, or renew what it has from bundle.json; your own text in it is kept."""
    if check:
        if not is_current(bundle):
            raise click.ClickException(f"{bundle / CARD_FILE} does not say what bundle.json says: id3pm card {bundle}")
        click.echo(f"{bundle / CARD_FILE} says what bundle.json says")
        return
    click.echo(f"{write_card(bundle)}: {to_fill_in(bundle)} paragraphs to be filled in")


def _new(bundle: Bundle) -> str:
    return (
        resources.files("id3pm.formats").joinpath(TEMPLATE).read_text(encoding="utf-8").replace("{name}", bundle.name)
    )


def _replaced(text: str, name: str, lines: Sequence[str]) -> str:
    """The card with new text between two marks; a card without the marks is left as it is."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        return text
    return before + begin + "".join(f"{line}\n" for line in lines) + end + after


def _front(bundle: Bundle) -> list[str]:
    licence = bundle.licence.lower() if re.fullmatch(r"[A-Za-z0-9.-]+", bundle.licence) else "other"
    tags = ["face-generation", "diffusion", "id3pm", "synthetic"]
    return ["---", f"license: {licence}", "library_name: id3pm", "tags:", *(f"  - {tag}" for tag in tags), "---"]


def _details(bundle: Bundle, hashes: Mapping[str, str]) -> list[str]:
    card = bundle.training_card
    names: dict[object, str] = {None: "none", "landmarks": "set landmarks: head pose and expression, measured"}
    attributes = names.get(bundle.attribute_set, f"the paper's set {bundle.attribute_set}")
    base, sr = bundle.sampling, bundle.sr_sampling
    rows = [
        ("ID vectors", f"{bundle.id_vector_model}, {bundle.identity_dim} numbers"),
        ("attributes", attributes),
        ("exported", str(card["exported"])) if "exported" in card else None,
        *(_network(bundle, stage, hashes[stage]) for stage in STAGES),
        (
            "default sampling",
            f"{base.sampler}, {_steps(base.steps)}, guidance {base.guidance_scale:g}; super-resolution {sr.sampler}, "
            f"{_steps(sr.steps)}",
        ),
    ]
    return _table(("", ""), [row for row in rows if row is not None])


def _network(bundle: Bundle, stage: str, sha256: str) -> tuple[str, str]:
    size = bundle.base.image_size if stage == "base" else bundle.sr.image_size
    trained = bundle.training_card.get(stage)
    parameters = trained.get("parameters") if isinstance(trained, Mapping) else None
    counted = f"{parameters / 1e6:.1f} M parameters, " if isinstance(parameters, int) else ""
    return _SIZES[stage].removeprefix("the "), f"{counted}{size} px, weights `{sha256[:12]}`"


def _steps(count: int) -> str:
    return f"{count} step{'' if count == 1 else 's'}"


def _data(card: Mapping[str, Any]) -> list[str]:
    rows = []
    for stage in STAGES:
        data = card.get(stage, {}).get("data")
        if data:
            about = data.get("description", {})
            source = about.get("source", about.get("kind", "not recorded"))
            size = f"{about['image_size']} px" if "image_size" in about else "not recorded"
            rows.append((_SIZES[stage], str(source), f"{data.get('images', 0):,}", size))
    if not rows:
        return [f"{TO_DO} `bundle.json` does not say what the networks were trained on."]
    return _table(("", "source", "faces", "size"), rows)


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
                    _SIZES[stage],
                    f"{found['images_seen'] + before:,}",
                    str(found["batch_size"]),
                    f"{found['learning_rate']:g}",
                    found["weights"],
                    _departs(found),
                )
            )
    if not rows:
        return [f"{TO_DO} `bundle.json` does not say how the networks were trained."]
    return _table(("", "images seen", "batch", "learning rate", "weights", "departs from the paper in"), rows)


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
                f"- {_SIZES[stage]}: {last} took {found['training_seconds'] / 3600:.1f} h on {found['hardware']}"
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
        label = f"{setting['sampler']}, {_steps(setting['steps'])}, guidance {setting['guidance_scale']:g}"
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
    return [intro, "", *_table(("", *heads), rows)]


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
        *_table(("", "method", "PSNR", "SSIM", "perceptual distance", "identity"), rows),
    ]


_TOLD: Mapping[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "data": _data,
    "training": _training,
    "figures": _figures,
    "compute": _compute,
}


def _told(tell: Callable[[Mapping[str, Any]], list[str]], card: Mapping[str, Any]) -> list[str]:
    """Reads a training card, which is free-form JSON; only the form of this package is known."""
    try:
        return tell(card)
    except (AttributeError, KeyError, TypeError, ValueError):
        return [f"{TO_DO} the training card in `bundle.json` has a form of its own; put it into words here."]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
